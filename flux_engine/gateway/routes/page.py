"""The page at `/`, and the files that it is made of under `/page/`. Nothing of it is made anew by the server."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

FOLDER: Final = Path(__file__).parents[1] / "page"

router: Final = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> FileResponse:
    """The page. It asks for a key itself, so that nobody needs one to open it."""
    return FileResponse(FOLDER / "index.html", headers={"Cache-Control": "no-cache"})


def serve_files(app: FastAPI) -> None:
    """Style, modules and library, each with an ETag."""
    app.mount("/page", StaticFiles(directory=FOLDER), name="page")
