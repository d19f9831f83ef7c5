from django.apps import AppConfig


class ChatConfig(AppConfig):
    name = "chat"

    def ready(self):
        from django.contrib.auth.signals import user_logged_out

        from . import tickets

        user_logged_out.connect(tickets.revoke_at_logout)
