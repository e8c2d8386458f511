"""Search, over the application and the real menu."""

from bento import search


def names(shop, query):
    return [item["name"] for item in shop.get(f"/api/search?q={query}").json()["results"]]


def test_search_finds_by_name(shop):
    assert names(shop, "falafel")[0] == "Falafel Box"


def test_search_forgives_typing_errors(shop):
    assert names(shop, "teryaki+samon")[0] == "Salmon Teriyaki"


def test_search_finds_by_what_is_in_the_box(shop):
    assert "Hainan Chicken" in names(shop, "ginger+rice")


def test_search_ignores_accents(shop):
    assert names(shop, "Ni%C3%A7oise")[0] == "Nicoise Salad"


def test_an_empty_search_shows_the_whole_menu(shop):
    assert len(names(shop, "")) == len(shop.get("/api/menu").json()["items"])


def test_results_come_best_first_and_name_the_scorer(shop):
    answer = shop.get("/api/search?q=chicken").json()
    scores = [item["score"] for item in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) <= 10
    assert answer["scorer"] == search.SCORER
