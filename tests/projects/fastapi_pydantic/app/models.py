from decimal import Decimal

from pydantic import BaseModel, PositiveInt


class Order(BaseModel):
    item: str
    count: PositiveInt
    price: Decimal


class Invoice(BaseModel):
    item: str
    total: Decimal
