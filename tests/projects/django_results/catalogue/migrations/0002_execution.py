from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("catalogue", "0001_initial")]
    operations = [
        migrations.CreateModel(
            name="Execution",
            fields=[
                ("job", models.UUIDField(primary_key=True, serialize=False)),
                ("text", models.CharField(max_length=36)),
            ],
        ),
    ]
