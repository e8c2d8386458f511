-- The boxes that can be ordered. Prices are whole cents; tags are words with spaces between.
CREATE TABLE items (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    category TEXT NOT NULL,
    price_cents INTEGER NOT NULL CHECK (price_cents > 0),
    calories_kcal INTEGER NOT NULL,
    protein_grams INTEGER NOT NULL,
    tags TEXT NOT NULL DEFAULT ''
);
