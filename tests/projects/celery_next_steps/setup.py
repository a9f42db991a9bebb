from setuptools import find_packages, setup

setup(name="example-tasks", version="1.0", packages=find_packages(), install_requires=["celery"])
