"""The class of all tasks of the shop: it has every hook that Celery calls."""

from celery import Task

from shop.notes import note


class HookedTask(Task):
    @classmethod
    def on_bound(cls, app):
        note("hook", "on_bound", str(cls.name))

    def shadow_name(self, args, kwargs, options):
        note("hook", "shadow_name", self.name)

    def before_start(self, task_id, args, kwargs):
        note("hook", "before_start", self.name)

    def on_success(self, retval, task_id, args, kwargs):
        note("hook", "on_success", self.name)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note("hook", "on_failure", self.name)

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        note("hook", "on_retry", self.name)

    def on_replace(self, sig):
        note("hook", "on_replace", self.name)
        return super().on_replace(sig)

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        note("hook", "after_return", self.name)
