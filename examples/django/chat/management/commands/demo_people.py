import secrets

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Makes lewin and zoe, who may log in, and says their new passwords, a line each"

    def handle(self, **options):
        people = get_user_model().objects
        for name in ("lewin", "zoe"):
            password = secrets.token_urlsafe(9)
            person, _ = people.get_or_create(username=name)
            person.set_password(password)
            person.save()
            self.stdout.write(f"{name} {password}")
