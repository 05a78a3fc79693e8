/* A stand-in for NVIDIA's libnvidia-ml.so.1: what each GPU tells stands in the file that FAKE_NVML names, one
 * `name gpu value` a line; a figure that is not there is not supported. Build: cc -shared -fPIC. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long u64;
enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };

static int look(const char *name, int gpu, u64 *value) {
    char own[64];
    int index, found = 0;
    u64 number;
    FILE *file = fopen(getenv("FAKE_NVML"), "r");
    if (!file) return 0;
    while (fscanf(file, "%63s %d %llu", own, &index, &number) == 3)
        if (!strcmp(own, name) && index == gpu) { *value = number; found = 1; }
    fclose(file);
    return found;
}

static int as_int(const char *name, void *gpu, unsigned *value) {
    u64 found;
    if (!look(name, (int)(long)gpu - 1, &found)) return NOT_SUPPORTED;
    *value = (unsigned)found;
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; return "made up"; }
int nvmlDeviceGetCount_v2(unsigned *count) { return as_int("count", (void *)1, count); }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **gpu) { *gpu = (void *)(long)(index + 1); return SUCCESS; }
int nvmlDeviceGetName(void *gpu, char *name, unsigned size) { (void)gpu; snprintf(name, size, "NVIDIA L4"); return 0; }
int nvmlDeviceGetPowerUsage(void *gpu, unsigned *milliwatts) { return as_int("milliwatts", gpu, milliwatts); }
int nvmlDeviceGetTotalEnergyConsumption(void *gpu, u64 *energy) {
    return look("millijoules", (int)(long)gpu - 1, energy) ? SUCCESS : NOT_SUPPORTED;
}
int nvmlDeviceGetMemoryInfo(void *gpu, u64 *memory) { /* total, free, used */
    if (!look("used", (int)(long)gpu - 1, &memory[2]) || !look("total", (int)(long)gpu - 1, &memory[0]))
        return NOT_SUPPORTED;
    memory[1] = memory[0] - memory[2];
    return SUCCESS;
}
int nvmlDeviceGetUtilizationRates(void *gpu, unsigned *rates) { rates[1] = 0; return as_int("busy", gpu, rates); }
int nvmlDeviceGetClockInfo(void *gpu, int kind, unsigned *clock) { return as_int(kind == 1 ? "sm" : "mem", gpu, clock); }
int nvmlDeviceGetCurrentClocksEventReasons(void *gpu, u64 *reasons) {
    return look("reasons", (int)(long)gpu - 1, reasons) ? SUCCESS : NOT_SUPPORTED;
}
struct process { unsigned pid; u64 used; unsigned instance, compute; };
int nvmlDeviceGetComputeRunningProcesses_v3(void *gpu, unsigned *count, struct process *found) {
    u64 pid;
    if (!look("pid", (int)(long)gpu - 1, &pid)) { *count = 0; return SUCCESS; }
    if (!found) { *count = 1; return INSUFFICIENT_SIZE; }
    *count = 1;
    found[0].pid = (unsigned)pid, found[0].used = 1, found[0].instance = found[0].compute = ~0u;
    return SUCCESS;
}
