import pytest
from catalogue.models import Film
from catalogue.tasks import make_slug


@pytest.mark.django_db
def test_a_film_gets_its_slug():
    film = Film.objects.create(title="Stalker, restored", year=1979)
    assert make_slug(film.pk) == "stalker-restored"
