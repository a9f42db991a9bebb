"""Report runs to people and programs: terminal, GitHub, Allure, JUnit, run page, summary."""
