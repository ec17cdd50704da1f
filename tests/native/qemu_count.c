/* A plugin for qemu-user on a Linux machine: prints how many instructions the guest ran between one getppid() and the
 * next. Declares what it needs of QEMU's plugin interface, since distributions package QEMU without the header.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

struct qemu_plugin_tb; /* a run of instructions without a branch into it */
typedef uint64_t plugin_id;
typedef void block_made(plugin_id, struct qemu_plugin_tb *);
typedef void block_run(unsigned cpu, void *data);
typedef void system_call(plugin_id, unsigned cpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                         uint64_t, uint64_t, uint64_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, block_made *call);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, block_run *call, int flags, void *data);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id id, system_call *call);

enum { GETPPID_AARCH64 = 173 };
#ifndef PLUGIN_VERSION
#define PLUGIN_VERSION 1 /* QEMU 4.2 to 8.2 */
#endif
__attribute__((visibility("default"))) int qemu_plugin_version = PLUGIN_VERSION;

static uint64_t count, start;
static int running;

static void on_run(unsigned cpu, void *data)
{
    (void)cpu;
    count += (uintptr_t)data;
}

static void on_block(plugin_id id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_run, 0, (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void on_call(plugin_id id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                    uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)id, (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number != GETPPID_AARCH64) {
        return;
    }
    if (running) {
        dprintf(STDOUT_FILENO, "%llu\n", (unsigned long long)(count - start));
    }
    running = !running;
    start = count;
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_vcpu_syscall_cb(id, on_call);
    return 0;
}
