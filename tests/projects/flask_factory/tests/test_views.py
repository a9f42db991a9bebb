from shop import create_app


def test_there_is_a_greeting():
    rules = {rule.rule for rule in create_app().url_map.iter_rules()}
    assert "/greet" in rules
