/* Makes the system calls that Python has prepared, before, in and after a fork: sandbox/isolation/prepared.py.

   Meanwhile the interpreter does not run, so that it writes to no page, and the kernel copies none. Nothing is decided
   here: which calls, in which order and with what, is in lists that Python makes.

   Sources: fork(2), syscall(2), https://docs.python.org/3/c-api/sys.html on PyOS_BeforeFork and what comes after it. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <unistd.h>

#define ARGUMENTS 6
#define WHATEVER (-1)

/* As _CallRow of prepared.py. */
struct call {
    long number;
    unsigned long arguments[ARGUMENTS];
    unsigned long known_later; /* bit i: argument i is the address of an int, which an earlier call has stored */
    int *result;               /* where to store what the call returns */
    long least;                /* a smaller result is a failure */
    long forgiven;             /* errno that is none; WHATEVER: none is */
};

/* A list of them. */
struct calls {
    Py_buffer buffer;
    const struct call *first;
    Py_ssize_t count;
};

/* Makes the calls in their order. Returns the place of the first that failed and its errno, or their number and 0. */
static Py_ssize_t make_calls(const struct calls *calls, int *failure)
{
    for (Py_ssize_t place = 0; place < calls->count; place++) {
        const struct call *call = &calls->first[place];
        unsigned long given[ARGUMENTS];
        for (int i = 0; i < ARGUMENTS; i++)
            given[i] = call->known_later >> i & 1 ? (unsigned long)(long)*(int *)call->arguments[i] : call->arguments[i];
        long result = syscall(call->number, given[0], given[1], given[2], given[3], given[4], given[5]);
        *call->result = (int)result;
        if (result < call->least) {
            int why = result == -1 ? errno : ENODATA;
            if (call->forgiven != why && call->forgiven != WHATEVER) {
                *failure = why;
                return place;
            }
        }
    }
    *failure = 0;
    return calls->count;
}

/* "O&" of PyArg_ParseTuple. */
static int take_calls(PyObject *array, void *taken)
{
    struct calls *calls = taken;
    if (array == NULL) { /* another argument was none */
        PyBuffer_Release(&calls->buffer);
        return 1;
    }
    if (PyObject_GetBuffer(array, &calls->buffer, PyBUF_SIMPLE) < 0)
        return 0;
    if (calls->buffer.itemsize != sizeof(struct call) || calls->buffer.len % (Py_ssize_t)sizeof(struct call)) {
        PyBuffer_Release(&calls->buffer);
        PyErr_SetString(PyExc_ValueError, "these are no calls as _prepared.c knows them: build it anew (make install)");
        return 0;
    }
    calls->first = calls->buffer.buf;
    calls->count = calls->buffer.len / (Py_ssize_t)sizeof(struct call);
    return Py_CLEANUP_SUPPORTED;
}

static PyObject *make(PyObject *module, PyObject *arguments)
{
    struct calls calls;
    int failure;
    if (!PyArg_ParseTuple(arguments, "O&", take_calls, &calls))
        return NULL;
    Py_ssize_t place = make_calls(&calls, &failure);
    PyBuffer_Release(&calls.buffer);
    return Py_BuildValue("ni", place, failure);
}

static PyObject *fork_between(PyObject *module, PyObject *arguments)
{
    enum { BEFORE, CHILD, FORK, AFTER } part = BEFORE; /* as in prepared.py */
    struct calls before, children[2], after;
    const unsigned char *chosen;
    int *pid_of_child, pid = -1, failure;
    if (!PyArg_ParseTuple(arguments, "O&O&O&O&kk", take_calls, &before, take_calls, &children[0], take_calls,
                          &children[1], take_calls, &after, &chosen, &pid_of_child))
        return NULL;
    Py_ssize_t place = make_calls(&before, &failure);
    if (failure == 0) {
        PyOS_BeforeFork();
        pid = fork();
        if (pid == 0) {
            part = CHILD;
            place = make_calls(&children[*chosen ? 1 : 0], &failure);
            PyOS_AfterFork_Child(); /* not before: it writes to many pages */
        } else {
            part = pid < 0 ? FORK : AFTER;
            failure = pid < 0 ? errno : 0;
            PyOS_AfterFork_Parent();
            *pid_of_child = pid;
            if (pid > 0)
                place = make_calls(&after, &failure);
        }
    }
    PyBuffer_Release(&before.buffer);
    PyBuffer_Release(&children[0].buffer);
    PyBuffer_Release(&children[1].buffer);
    PyBuffer_Release(&after.buffer);
    return Py_BuildValue("iini", pid, (int)part, place, failure);
}

static PyMethodDef functions[] = {
    {"make", make, METH_VARARGS, "Make calls: the place of the first that failed, and its errno; or their number, and 0."},
    {"fork_between", fork_between, METH_VARARGS, "Make calls, fork, make calls in the child, and others in the parent."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "_prepared", .m_doc = "See prepared.py.", .m_size = 0, .m_methods = functions};

PyMODINIT_FUNC PyInit__prepared(void) { return PyModuleDef_Init(&module); }
