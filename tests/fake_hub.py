"""As much of the hub as `datasets` needs to stream a data set of Parquet files: a server of one folder."""
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

COMMIT = 'c' * 40


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    folder, name = None, None  # set by `fake_hub`

    def log_message(self, *_): pass

    def answer(self, code, body=b'', **headers):
        self.send_response(code)
        for key, value in {**headers, 'Content-Length': str(len(body))}.items():
            self.send_header(key.replace('_', '-'), value)
        self.end_headers()
        if self.command == 'GET': self.wfile.write(body)

    def listing(self, folder):
        found = [{'type': 'directory' if p.is_dir() else 'file', 'oid': 'd' * 40, 'size': p.stat().st_size,
                  'path': p.relative_to(self.folder).as_posix()}
                 for p in sorted(folder.iterdir())]
        self.answer(200, json.dumps(found).encode())

    def file(self, path):
        if not path.is_file(): return self.answer(404, X_Error_Code='EntryNotFound')
        data = path.read_bytes()
        facts = dict(ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=COMMIT, Accept_Ranges='bytes')
        if not (wanted := self.headers.get('Range')): return self.answer(200, data, **facts)
        first, last = wanted.removeprefix('bytes=').split('-')
        first, last = int(first), min(int(last or len(data)), len(data) - 1)
        self.answer(206, data[first:last + 1], Content_Range=f'bytes {first}-{last}/{len(data)}', **facts)

    def do_GET(self):
        path = unquote(urlparse(self.path).path)
        api, files = f'/api/datasets/{self.name}', f'/datasets/{self.name}/resolve/'
        if path.startswith(f'{api}/tree/'):
            self.listing(self.folder/'/'.join(path.removeprefix(f'{api}/tree/').split('/')[1:]))
        elif path.startswith(api):
            self.answer(200,
                        json.dumps({'id': self.name, 'sha': COMMIT, 'tags': [], 'siblings': []}).encode())
        elif path.startswith(files): self.file(self.folder/path.removeprefix(files).split('/', 1)[1])
        else: self.answer(404, b'{}')

    do_HEAD = do_GET


def fake_hub(folder, name):
    "A running server that holds one data set; its address is `http://127.0.0.1:{server.server_port}`."
    server = ThreadingHTTPServer(('127.0.0.1', 0),
                                 type('OneFolder', (Handler,), {'folder': Path(folder), 'name': name}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
