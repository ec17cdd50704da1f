"""What is known of NVIDIA's driver API: the functions used, and what their results say. No calls."""

from __future__ import annotations

#: Names that libraries of the driver have, on Linux and on Windows.
LIBRARIES = ("libcuda.so.1", "nvcuda.dll")

#: Names are those of the library; those with _v2 take sizes and addresses of 64 bits.
DECLARATIONS = """
typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct {
    size_t srcXInBytes, srcY;
    int srcMemoryType;
    const void *srcHost;
    CUdeviceptr srcDevice;
    void *srcArray;
    size_t srcPitch;
    size_t dstXInBytes, dstY;
    int dstMemoryType;
    void *dstHost;
    CUdeviceptr dstDevice;
    void *dstArray;
    size_t dstPitch;
    size_t WidthInBytes, Height;
} CUDA_MEMCPY2D;

CUresult cuInit(unsigned int flags);
CUresult cuDriverGetVersion(int *version);
CUresult cuGetErrorName(CUresult error, const char **name);
CUresult cuDeviceGetCount(int *count);
CUresult cuDeviceGet(CUdevice *device, int ordinal);
CUresult cuDeviceGetName(char *name, int size, CUdevice device);
CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device);
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device);
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device);
CUresult cuCtxPushCurrent_v2(CUcontext context);
CUresult cuCtxPopCurrent_v2(CUcontext *context);
CUresult cuModuleLoadData(CUmodule *module, const void *image);
CUresult cuModuleUnload(CUmodule module);
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name);
CUresult cuPointerGetAttribute(void *value, int attribute, CUdeviceptr address);
CUresult cuMemGetInfo_v2(size_t *free, size_t *total);
CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size);
CUresult cuMemFree_v2(CUdeviceptr address);
CUresult cuMemHostAlloc(void **address, size_t size, unsigned int flags);
CUresult cuMemFreeHost(void *address);
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream);
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream);
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream);
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *copy, CUstream stream);
CUresult cuMemsetD8Async(CUdeviceptr address, unsigned char value, size_t size, CUstream stream);
CUresult cuStreamCreate(CUstream *stream, unsigned int flags);
CUresult cuStreamDestroy_v2(CUstream stream);
CUresult cuStreamSynchronize(CUstream stream);
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags);
CUresult cuEventCreate(CUevent *event, unsigned int flags);
CUresult cuEventDestroy_v2(CUevent event);
CUresult cuEventRecord(CUevent event, CUstream stream);
CUresult cuEventSynchronize(CUevent event);
CUresult cuThreadExchangeStreamCaptureMode(int *mode);
CUresult cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                        unsigned int threads_x, unsigned int threads_y, unsigned int threads_z, unsigned int shared,
                        CUstream stream, void **arguments, void **extra);
"""

#: Attributes of a device: its compute capability.
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
#: Flags: a stream that does not wait for the default one; an event without a time, one that is waited for asleep.
STREAM_NON_BLOCKING, EVENT_NO_TIMING, EVENT_BLOCKING_SYNC = 1, 2, 1
#: The default stream that a process' threads share, which every other waits for that is not non-blocking; and the first
#: handle that may be the address of a stream.
STREAM_LEGACY, STREAM_FIRST = 1, 4096
#: A thread's mode in which memory can be made and freed while a stream is captured into a graph.
CAPTURE_RELAXED = 2
#: Results of calls that another stream's capture forbids.
CAPTURING = range(900, 909)
#: The attribute of an address: the number of the device whose memory it is in.
POINTER_DEVICE = 9
#: The kind of memory that CUDA_MEMCPY2D means by an address of the device.
MEMORY_DEVICE = 2
#: The most CTAs of a grid in its first dimension.
MOST_CTAS = 2**31 - 1

INVALID_VALUE, OUT_OF_MEMORY, NO_DEVICE, LAUNCH_OUT_OF_RESOURCES = 1, 2, 100, 701
#: Results of cuModuleLoadData that say there is no code for this device, or none that this driver reads.
NO_CODE = {200, 209, 218, 222, 223}
#: The oldest driver whose functions read kernels made by CUDA 13: its version as cuDriverGetVersion has it, and the
#: number that users know it by.
KERNELS_NEED, KERNELS_NEED_DRIVER = 13000, "580"

_LOST = "the device is lost to this process, which has to be started again"
#: What a result means, where the driver's own name for it says too little.
MEANINGS = {
    3: "the driver is not initialized (in a process that was forked?)",
    4: "the driver is shutting down",
    34: "a library of the CUDA toolkit in the driver's place; the driver itself is missing",
    46: "the device is in exclusive use, or was lost",
    100: "no NVIDIA GPU is seen (CUDA_VISIBLE_DEVICES hides some)",
    101: "there is no such device",
    214: f"an error in the device's memory that it could not correct; {_LOST}",
    220: f"an error on the link between devices; {_LOST}",
    226: f"an error in the device's memory, contained; {_LOST}",
    400: "a stream or event that is none, or is another device's",
    500: "there is no such kernel in the file",
    700: f"a kernel reached for memory that is not its own; {_LOST}",
    701: "the device lacks the registers or the memory to start a kernel",
    702: f"a kernel took longer than the system lets it; {_LOST}",
    709: f"the device's context was destroyed; {_LOST}",
    710: f"an assertion of a kernel failed; {_LOST}",
    714: f"an error of the hardware's stack; {_LOST}",
    715: f"an instruction that the device does not know; {_LOST}",
    716: f"a kernel reached for memory beside a boundary; {_LOST}",
    717: f"a kernel reached for memory of the wrong kind; {_LOST}",
    718: f"a kernel went on where no code is; {_LOST}",
    719: f"a kernel failed; {_LOST}",
    721: f"a kernel left tensor memory taken; {_LOST}",
    802: "the system is not ready (NVIDIA's fabric manager is not running?)",
    803: "the driver's library and its kernel module are of different versions; restart the system",
    804: "the driver is too old for this library, which is of another version's compatibility package",
    999: f"an unknown error; {_LOST}",
}
