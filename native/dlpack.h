/* DLPack's structures (dmlc/dlpack, versions 0 and 1) and the capsules that carry them. Part of the extension module
 * alone, for it speaks to Python; whatever others call is C, so that it can be called while an exception is pending,
 * by any thread, and when the interpreter is no longer there.
 *
 * The region between the two markers is the text that both the C compiler and cffi read.
 */
#ifndef FORGE_DLPACK_H
#define FORGE_DLPACK_H

#include <stdint.h>
#include <stdlib.h>

/* cdef begin */

typedef struct {
    void *data;
    int32_t device_type, device_id, ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides; /* of elements; strides may be NULL where they are C-contiguous */
    uint64_t byte_offset;
} forge_dl_tensor;

/* Appends to `list` a capsule of a tensor that holds a reference to `owner` until it is done with. Both are addresses of
 * Python's objects. tensor: copied, as are the numbers it points to. versioned: the structure of version 1.
 * Returns 0 where there is no memory. */
int forge_dl_give(void *list, void *owner, const forge_dl_tensor *tensor, int versioned);
/* What a capsule, the address of any Python object, carries; NULL where it is none of DLPack's, or was taken. Valid
 * while the capsule lives. */
const forge_dl_tensor *forge_dl_look(void *capsule);
/* From now on nothing is given back, for the interpreter is about to end. */
void forge_dl_leave(void);

/* cdef end */

#define FORGE_DL_NAME "dltensor"
#define FORGE_DL_NAME_1 "dltensor_versioned"

typedef struct forge_dl_managed {
    forge_dl_tensor tensor;
    void *manager;
    void (*deleter)(struct forge_dl_managed *);
} forge_dl_managed;

typedef struct forge_dl_managed_1 {
    uint32_t major, minor;
    void *manager;
    void (*deleter)(struct forge_dl_managed_1 *);
    uint64_t flags;
    forge_dl_tensor tensor;
} forge_dl_managed_1;

static volatile int forge_dl_left;

/* Lets go of the owner and of the structure's memory; an exception that is pending stays so. */
static void forge_dl_let_go(void *owner, void *managed)
{
    PyGILState_STATE state;
    PyObject *type, *value, *trace;
    if (forge_dl_left || !Py_IsInitialized()) {
        return;
    }
    state = PyGILState_Ensure();
    PyErr_Fetch(&type, &value, &trace);
    Py_DECREF((PyObject *)owner);
    free(managed);
    PyErr_Restore(type, value, trace);
    PyGILState_Release(state);
}

static void forge_dl_delete(forge_dl_managed *self) { forge_dl_let_go(self->manager, self); }
static void forge_dl_delete_1(forge_dl_managed_1 *self) { forge_dl_let_go(self->manager, self); }

/* Whoever takes a capsule's tensor gives the capsule another name. */
static void forge_dl_untaken(PyObject *capsule)
{
    if (PyCapsule_IsValid(capsule, FORGE_DL_NAME)) {
        forge_dl_delete((forge_dl_managed *)PyCapsule_GetPointer(capsule, FORGE_DL_NAME));
    } else if (PyCapsule_IsValid(capsule, FORGE_DL_NAME_1)) {
        forge_dl_delete_1((forge_dl_managed_1 *)PyCapsule_GetPointer(capsule, FORGE_DL_NAME_1));
    }
}

/* cffi calls without the GIL. */
int forge_dl_give(void *list, void *owner, const forge_dl_tensor *tensor, int versioned)
{
    const size_t ndim = (size_t)tensor->ndim, size = versioned ? sizeof(forge_dl_managed_1) : sizeof(forge_dl_managed);
    char *const managed = malloc(size + 2 * ndim * sizeof(int64_t));
    forge_dl_tensor *const made = versioned ? &((forge_dl_managed_1 *)managed)->tensor : (forge_dl_tensor *)managed;
    PyGILState_STATE state;
    PyObject *capsule;
    int done;
    if (!managed) {
        return 0;
    }
    *made = *tensor;
    made->shape = (int64_t *)(managed + size);
    made->strides = made->shape + ndim;
    for (size_t i = 0; i < ndim; i++) {
        made->shape[i] = tensor->shape[i];
        made->strides[i] = tensor->strides[i];
    }
    if (versioned) {
        forge_dl_managed_1 *const self = (forge_dl_managed_1 *)managed;
        self->major = 1;
        self->minor = 0;
        self->manager = owner;
        self->deleter = forge_dl_delete_1;
        self->flags = 0;
    } else {
        forge_dl_managed *const self = (forge_dl_managed *)managed;
        self->manager = owner;
        self->deleter = forge_dl_delete;
    }
    state = PyGILState_Ensure();
    capsule = PyCapsule_New(managed, versioned ? FORGE_DL_NAME_1 : FORGE_DL_NAME, forge_dl_untaken);
    if (capsule) {
        Py_INCREF((PyObject *)owner);
        done = PyList_Append((PyObject *)list, capsule) == 0;
        Py_DECREF(capsule);
    } else {
        free(managed);
        done = 0;
    }
    PyErr_Clear();
    PyGILState_Release(state);
    return done;
}

const forge_dl_tensor *forge_dl_look(void *capsule)
{
    PyObject *const object = (PyObject *)capsule;
    const PyGILState_STATE state = PyGILState_Ensure();
    const forge_dl_tensor *found = NULL;
    if (PyCapsule_IsValid(object, FORGE_DL_NAME)) {
        found = &((forge_dl_managed *)PyCapsule_GetPointer(object, FORGE_DL_NAME))->tensor;
    } else if (PyCapsule_IsValid(object, FORGE_DL_NAME_1)) {
        forge_dl_managed_1 *const managed = (forge_dl_managed_1 *)PyCapsule_GetPointer(object, FORGE_DL_NAME_1);
        found = managed->major == 1 ? &managed->tensor : NULL;
    }
    PyGILState_Release(state);
    return found;
}

void forge_dl_leave(void) { forge_dl_left = 1; }

#endif
