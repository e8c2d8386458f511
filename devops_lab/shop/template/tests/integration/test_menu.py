"""The menu, over the application and a real database."""


def test_the_menu_lists_all_boxes_in_order(shop):
    items = shop.get("/api/menu").json()["items"]
    assert len(items) >= 60
    assert [item["id"] for item in items] == list(range(1, len(items) + 1))


def test_prices_are_whole_cents(shop):
    menu = shop.get("/api/menu").json()
    assert menu["currency"] == "EUR"
    assert all(isinstance(item["price_cents"], int) and item["price_cents"] > 100 for item in menu["items"])


def test_each_box_says_what_is_in_it(shop):
    for item in shop.get("/api/menu").json()["items"]:
        assert item["name"]
        assert item["description"]
        assert item["category"]
        assert item["calories_kcal"] > 0
        assert item["protein_grams"] > 0


def test_tags_are_a_list_of_known_words(shop):
    tags = {tag for item in shop.get("/api/menu").json()["items"] for tag in item["tags"]}
    assert tags == {"vegan", "gluten-free", "nuts", "spicy", "high-protein"}


def test_a_changed_price_shows_once_the_kept_menu_is_stale(shop, database, monkeypatch):
    shop.get("/api/menu")
    database.execute("UPDATE items SET price_cents = 999 WHERE id = 1")
    monkeypatch.setattr("bento.menu.FRESH_SECONDS", -1.0)
    assert shop.get("/api/menu").json()["items"][0]["price_cents"] == 999
