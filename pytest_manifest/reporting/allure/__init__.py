"""Write Allure results about the jobs: their times, places, attempts and receipts.

allure-pytest writes what pytest did. The result of an entry's test is made from the run's ledger
before it is written; every other result stays as allure-pytest makes it.
"""
