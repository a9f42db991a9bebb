from shop.tasks import confirm


def test_confirm_goes_to_the_mails() -> None:
    assert confirm.queue == "mails"
