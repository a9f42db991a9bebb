from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Film",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("title", models.CharField(max_length=200, unique=True)),
                ("year", models.PositiveIntegerField()),
                ("slug", models.SlugField(blank=True)),
            ],
        ),
    ]
