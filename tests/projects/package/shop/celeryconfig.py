import os

from kombu import Exchange, Queue

broker_url = os.environ.get("SHOP_BROKER", "amqp://shop:secret@rabbit.internal:5672/shop")
result_backend = os.environ.get("SHOP_RESULTS", "redis://redis.internal:6379/4")

task_default_queue = "shop"
task_queues = (
    Queue("shop", Exchange("shop"), routing_key="shop"),
    Queue("mail", Exchange("shop"), routing_key="mail"),
)
task_default_exchange = "shop"
task_default_routing_key = "shop"
task_routes = {"shop.mail.*": {"queue": "mail", "routing_key": "mail"}}

task_acks_late = True
task_track_started = True
task_time_limit = 60
worker_prefetch_multiplier = 1
timezone = "Europe/Berlin"
