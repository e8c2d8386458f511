-- Tells a retry from a key that is used for two different orders.
ALTER TABLE orders ADD COLUMN body_digest TEXT NOT NULL DEFAULT '';
