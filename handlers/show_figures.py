"""A backend of matplotlib that keeps what ``pyplot.show()`` would show: ``figure-1.png`` and so on in ``artifacts/``.

matplotlib loads it by the name in ``MPLBACKEND``, see "Writing a backend" in its manual. It draws with Agg, which needs
no screen. A script that chooses another backend by itself gets that one.
"""

from __future__ import annotations

from matplotlib._pylab_helpers import Gcf
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

from handlers import pictures


class FigureManager(FigureManagerBase):
    """Keeps figures instead of showing them."""

    @classmethod
    def pyplot_show(cls, *, block: bool | None = None) -> None:  # noqa: ARG003 as matplotlib calls it
        """Keep all open figures, then close them, as a person would close their windows."""
        for manager in Gcf.get_all_fig_managers():
            pictures.kept().figure(manager.canvas.figure)
        Gcf.destroy_all()

    def show(self) -> None:
        """Keep this figure, for ``figure.show()``."""
        pictures.kept().figure(self.canvas.figure)


class FigureCanvas(FigureCanvasAgg):
    """Agg's, with our manager."""

    manager_class = FigureManager
