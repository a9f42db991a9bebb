import os

os.environ["SHOP_SECRET_KEY"] = "of tests"
