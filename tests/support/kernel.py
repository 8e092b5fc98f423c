"""A page of the app in marimo's kernel without a server: what runs, and what is sent, when a control moves."""

import asyncio
import queue

from marimo._ast.app import InternalApp
from marimo._ast.load import load_app
from marimo._config.config import DEFAULT_CONFIG
from marimo._messaging.types import KernelStreams, Stream
from marimo._runtime import kernel_lifecycle
from marimo._runtime.commands import AppMetadata, CreateNotebookCommand, ExecuteCellCommand, UpdateUIElementCommand
from marimo._session.model import SessionMode

from ocr_flops.app.tabs import GROUPS, group_of


class Sent(Stream):
    """Messages to the page."""

    def __init__(self):
        self.messages = []

    def write(self, data):
        self.messages.append(bytes(data))

    def copy_for_thread(self):
        return self


class KernelPage:
    """A page opened with a link's query; `sent` are the messages that followed from what was done last."""

    def __init__(self, path, **query):
        app, self._stream, self._loop = InternalApp(load_app(path)), Sent(), asyncio.new_event_loop()
        streams = KernelStreams(stream=self._stream, stdout=None, stderr=None, stdin=None)
        about = AppMetadata(query_params=query, cli_args={}, app_config=app.config, filename=str(path))
        arguments = kernel_lifecycle.KernelArgs(
            streams=streams,
            debugger=None,
            configs=app.cell_manager.config_map(),
            app_metadata=about,
            user_config=DEFAULT_CONFIG,
            mode=SessionMode.RUN,
            control_queue=queue.Queue(),
            set_ui_element_queue=queue.Queue(),
            virtual_file_storage="in_memory",
        )
        self._kernel, self._context = kernel_lifecycle.create_kernel(arguments)
        cells = app.cell_manager.code_map()
        runs = tuple(ExecuteCellCommand(cell_id=cell, code=code) for cell, code in cells.items())
        nothing = UpdateUIElementCommand(object_ids=[], values=[])
        self._handle(
            CreateNotebookCommand(execution_requests=runs, cell_ids=tuple(cells), set_ui_element_value_request=nothing, auto_run=True)
        )

    def __getitem__(self, name):
        return self._kernel.globals[name]

    def set(self, control, value):
        """Moves a control, as the page reports it: a slider's place, a tab's number as text."""
        self._handle(UpdateUIElementCommand(object_ids=[control._id], values=[value]))

    def open(self, tab):
        """Opens a tab, by way of its group."""
        group = group_of(tab)
        if self["group"].value != group:
            self.set(self["group"], str([*GROUPS].index(group)))
        if self["tab"] != tab:
            self.set(self["group_tabs"].elements[group], str(GROUPS[group].index(tab)))

    @property
    def sent(self):
        return self._stream.messages

    def _handle(self, command):
        self.sent.clear()
        self._loop.run_until_complete(self._kernel.handle_message(command))

    def close(self):
        kernel_lifecycle.teardown_kernel(self._kernel, self._context)
        self._loop.close()
