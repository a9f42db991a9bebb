from shop import price


def test_price():
    assert price("tea", 2) == {"item": "tea", "cents": 500}
