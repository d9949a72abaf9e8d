import psycopg


def test_smoke(postgres_url):
    with psycopg.connect(postgres_url) as c:
        assert c.execute("select 1").fetchone() == (1,)
