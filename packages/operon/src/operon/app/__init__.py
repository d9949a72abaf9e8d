"""Wire declarations, engine, stores and datasources together: the only layer that knows everybody."""

from operon.app.app import Operon as Operon
from operon.app.routes import Routes as Routes
