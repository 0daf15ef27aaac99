/* A stand-in for libnvidia-ml.so.1 that plays a capture, so that the real nvidia-ml-py runs against it.
 *
 * It is told what to answer by stub_load, as text, one line an answer:
 *
 *     who/function[/argument] TAB return code TAB milliseconds to sleep TAB value TAB value ...
 *     event TAB who TAB event type TAB data
 *
 * `who` is a GPU's number, "0.1" for place 1 of GPU 0 (MIG), "0:3" for GPU instance 3 of GPU 0 (GPM), or nothing.
 * "*" stands for any GPU that has no line of its own. A line for "who/" followed by a star answers everything asked of
 * that GPU. What has no line is not supported. Layouts are those of nvml.h as pynvml declares them.
 */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_GPUS 16
#define MAX_MIGS 8
#define MAX_LINES 4096
#define MAX_VALUES 256
#define MAX_EVENTS 64

enum { SUCCESS = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, TIMED_OUT = 10 };

typedef struct { char name[16]; } handle;
typedef struct { char who[32]; } gpm_sample;
typedef struct { int code; int sleep_ms; int count; char *values[MAX_VALUES]; char text[8192]; } answer;

static handle gpus[MAX_GPUS], migs[MAX_GPUS][MAX_MIGS];
static char *lines[MAX_LINES];
static int line_count;
static struct { char who[16]; unsigned long long type, data; } events[MAX_EVENTS];
static int event_count;
static unsigned long calls;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* --- for the tests --- */

void stub_load(const char *text) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < line_count; i++) free(lines[i]);
    line_count = 0;
    char *copy = strdup(text), *rest = copy, *line;
    while ((line = strsep(&rest, "\n")) && line_count < MAX_LINES) {
        if (!*line) continue;
        if (!strncmp(line, "event\t", 6) && event_count < MAX_EVENTS) {
            sscanf(line, "event\t%15s\t%llu\t%llu", events[event_count].who, &events[event_count].type,
                   &events[event_count].data);
            event_count++;
        } else {
            lines[line_count++] = strdup(line);
        }
    }
    free(copy);
    pthread_mutex_unlock(&lock);
}

void stub_forget_events(void) { event_count = 0; }

unsigned long stub_calls(void) { return calls; }

/* --- looking up --- */

static const char *line_of(const char *who, const char *rest) {
    char key[160];
    int length = snprintf(key, sizeof key, "%s/%s\t", who, rest);
    for (int i = 0; i < line_count; i++)
        if (!strncmp(lines[i], key, length)) return lines[i] + length;
    return NULL;
}

static const char *any_line_of(const char *who, const char *rest) {
    const char *line = line_of(who, "*");
    if (line || (line = line_of(who, rest)) || !*who) return line;
    char general[32];
    const char *place = strpbrk(who, ".:");
    snprintf(general, sizeof general, "*%s", place ? place : "");
    return line_of(general, rest);
}

/* Fill `found` with the answer, sleep as long as it says, and return its code. */
static int ask(const char *who, const char *function, const char *argument, answer *found) {
    char rest[128];
    snprintf(rest, sizeof rest, argument ? "%s/%s" : "%s", function, argument);
    pthread_mutex_lock(&lock);
    calls++;
    const char *line = any_line_of(who, rest);
    found->count = 0;
    found->sleep_ms = 0;
    if (!line) {
        found->code = NOT_SUPPORTED;
    } else {
        snprintf(found->text, sizeof found->text, "%s", line);
        char *next = found->text, *word;
        found->code = atoi(strsep(&next, "\t"));
        found->sleep_ms = next ? atoi(strsep(&next, "\t")) : 0;
        while (found->count < MAX_VALUES && (word = strsep(&next, "\t"))) found->values[found->count++] = word;
    }
    pthread_mutex_unlock(&lock);
    if (found->sleep_ms) usleep(found->sleep_ms * 1000u);
    return found->code;
}

static unsigned long long number(const answer *found, int index) {
    return index < found->count ? strtoull(found->values[index], NULL, 10) : 0;
}

static int ask_uint(const handle *who, const char *function, const char *argument, unsigned *value) {
    answer found;
    if (!ask(who->name, function, argument, &found)) *value = (unsigned)number(&found, 0);
    return found.code;
}

static int ask_text(const char *who, const char *function, char *text, unsigned length) {
    answer found;
    if (!ask(who, function, NULL, &found)) snprintf(text, length, "%s", found.count ? found.values[0] : "");
    return found.code;
}

static int ask_uint_with(const handle *who, const char *function, unsigned argument, unsigned *value) {
    char text[16];
    snprintf(text, sizeof text, "%u", argument);
    return ask_uint(who, function, text, value);
}

/* In another process nobody can call stub_load: there the answers are read from the file that NVML_STUB_FILE names, at
 * the start and before each reading of the power. */
static void read_file(void) {
    static char text[1 << 20];
    const char *path = getenv("NVML_STUB_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    stub_load(text);
}

/* --- the library: system --- */

int nvmlInitWithFlags(unsigned flags) {
    answer found;
    (void)flags;
    read_file();
    int code = ask("", "nvmlInit", NULL, &found);
    return code == NOT_SUPPORTED ? SUCCESS : code;
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    static char text[32];
    snprintf(text, sizeof text, "stub error %d", code);
    return text;
}

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    return ask_text("", "nvmlSystemGetDriverVersion", text, length);
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    handle nobody = {""};
    return ask_uint(&nobody, "nvmlDeviceGetCount", NULL, count);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle **device) {
    answer found;
    if (index >= MAX_GPUS) return INVALID;
    snprintf(gpus[index].name, sizeof gpus[index].name, "%u", index);
    *device = &gpus[index];
    int code = ask(gpus[index].name, "nvmlDeviceGetHandleByIndex", NULL, &found);
    return code == NOT_SUPPORTED ? SUCCESS : code;
}

/* --- the library: one GPU --- */

int nvmlDeviceGetUUID(handle *device, char *text, unsigned length) {
    return ask_text(device->name, "nvmlDeviceGetUUID", text, length);
}

int nvmlDeviceGetName(handle *device, char *text, unsigned length) {
    return ask_text(device->name, "nvmlDeviceGetName", text, length);
}

typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_info;

int nvmlDeviceGetPciInfo_v3(handle *device, pci_info *info) {
    memset(info, 0, sizeof *info);
    return ask_text(device->name, "nvmlDeviceGetPciInfo_v3", info->bus_id, sizeof info->bus_id);
}

typedef struct {
    unsigned field, scope;
    long long stamp, latency;
    unsigned type;
    int code;
    union { double d; unsigned ui; unsigned long ul; unsigned long long ull; long long sll; int si; unsigned short us; } v;
} field_value;

static void set_value(field_value *value, const answer *found) {
    const char *text = found->count > 1 ? found->values[1] : "0";
    value->type = (unsigned)number(found, 0);
    value->v.ull = 0;
    switch (value->type) {
    case 0: value->v.d = strtod(text, NULL); break;
    case 1: value->v.ui = (unsigned)strtoul(text, NULL, 10); break;
    case 4: value->v.sll = strtoll(text, NULL, 10); break;
    case 5: value->v.si = atoi(text); break;
    case 6: value->v.us = (unsigned short)atoi(text); break;
    default: value->v.ull = strtoull(text, NULL, 10);
    }
}

int nvmlDeviceGetFieldValues(handle *device, int count, field_value *values) {
    answer found;
    int code = ask(device->name, "nvmlDeviceGetFieldValues", NULL, &found);
    if (code && code != NOT_SUPPORTED) return code;
    for (int i = 0; i < count; i++) {
        char argument[32];
        snprintf(argument, sizeof argument, values[i].scope ? "%u:%u" : "%u", values[i].field, values[i].scope);
        values[i].code = ask(device->name, "nvmlDeviceGetFieldValues", argument, &found);
        if (!values[i].code) set_value(&values[i], &found);
    }
    return SUCCESS;
}

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;

int nvmlDeviceGetMemoryInfo_v2(handle *device, memory_v2 *memory) {
    answer found;
    if (!ask(device->name, "nvmlDeviceGetMemoryInfo", NULL, &found)) {
        memory->total = number(&found, 0);
        memory->reserved = number(&found, 1);
        memory->free = number(&found, 2);
        memory->used = number(&found, 3);
    }
    return found.code;
}

int nvmlDeviceGetUtilizationRates(handle *device, unsigned rates[2]) {
    answer found;
    if (!ask(device->name, "nvmlDeviceGetUtilizationRates", NULL, &found))
        for (int i = 0; i < 2; i++) rates[i] = (unsigned)number(&found, i);
    return found.code;
}

int nvmlDeviceGetPowerUsage(handle *device, unsigned *milliwatts) {
    read_file();
    return ask_uint(device, "nvmlDeviceGetPowerUsage", NULL, milliwatts);
}

int nvmlDeviceGetEnforcedPowerLimit(handle *device, unsigned *milliwatts) {
    return ask_uint(device, "nvmlDeviceGetEnforcedPowerLimit", NULL, milliwatts);
}

typedef struct { unsigned version, sensor; int temperature; } temperature_v1;

int nvmlDeviceGetTemperatureV(handle *device, temperature_v1 *value) {
    return ask_uint_with(device, "nvmlDeviceGetTemperatureV", value->sensor, (unsigned *)&value->temperature);
}

int nvmlDeviceGetTemperature(handle *device, unsigned sensor, unsigned *celsius) {
    return ask_uint_with(device, "nvmlDeviceGetTemperature", sensor, celsius);
}

int nvmlDeviceGetClockInfo(handle *device, unsigned clock, unsigned *mhz) {
    return ask_uint_with(device, "nvmlDeviceGetClockInfo", clock, mhz);
}

static int ask_mask(handle *device, const char *function, unsigned long long *mask) {
    answer found;
    if (!ask(device->name, function, NULL, &found)) *mask = number(&found, 0);
    return found.code;
}

int nvmlDeviceGetCurrentClocksEventReasons(handle *device, unsigned long long *mask) {
    return ask_mask(device, "nvmlDeviceGetCurrentClocksEventReasons", mask);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(handle *device, unsigned long long *mask) {
    return ask_mask(device, "nvmlDeviceGetCurrentClocksThrottleReasons", mask);
}

typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } process;

int nvmlDeviceGetComputeRunningProcesses_v3(handle *device, unsigned *count, process *processes) {
    answer found;
    if (ask(device->name, "nvmlDeviceGetComputeRunningProcesses_v3", NULL, &found)) return found.code;
    unsigned running = (unsigned)found.count / 2, room = *count;
    *count = running;
    if (running > room || (running && !processes)) return TOO_SMALL;
    for (unsigned i = 0; i < running; i++) {
        processes[i].pid = (unsigned)number(&found, 2 * (int)i);
        processes[i].memory = number(&found, 2 * (int)i + 1);
        processes[i].gpu_instance = processes[i].compute_instance = 0xFFFFFFFF;
    }
    return SUCCESS;
}

/* --- the library: MIG --- */

int nvmlDeviceGetMigMode(handle *device, unsigned *current, unsigned *pending) {
    answer found;
    if (!ask(device->name, "nvmlDeviceGetMigMode", NULL, &found)) {
        *current = (unsigned)number(&found, 0);
        *pending = (unsigned)number(&found, 1);
    }
    return found.code;
}

int nvmlDeviceGetMaxMigDeviceCount(handle *device, unsigned *count) {
    return ask_uint(device, "nvmlDeviceGetMaxMigDeviceCount", NULL, count);
}

int nvmlDeviceGetMigDeviceHandleByIndex(handle *device, unsigned index, handle **mig) {
    answer found;
    unsigned gpu = (unsigned)(device - gpus);
    if (gpu >= MAX_GPUS || index >= MAX_MIGS) return INVALID;
    handle *place = &migs[gpu][index];
    snprintf(place->name, sizeof place->name, "%u.%u", gpu, index);
    *mig = place;
    int code = ask(place->name, "nvmlDeviceGetUUID", NULL, &found);
    return code == NOT_SUPPORTED ? NOT_FOUND : code;
}

int nvmlDeviceGetGpuInstanceId(handle *device, unsigned *id) {
    return ask_uint(device, "nvmlDeviceGetGpuInstanceId", NULL, id);
}

typedef struct {
    unsigned multiprocessors, copy, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices;
    unsigned long long memory_mib;
} attributes;

int nvmlDeviceGetAttributes_v2(handle *device, attributes *value) {
    answer found;
    memset(value, 0, sizeof *value);
    if (!ask(device->name, "nvmlDeviceGetAttributes_v2", NULL, &found)) {
        value->gpu_slices = (unsigned)number(&found, 0);
        value->memory_mib = number(&found, 1);
    }
    return found.code;
}

/* --- the library: GPM --- */

typedef struct { unsigned id; int code; double value; const char *names[3]; } gpm_metric;
typedef struct { unsigned version, count; gpm_sample *first, *second; gpm_metric metrics[]; } gpm_request;

int nvmlGpmSampleAlloc(gpm_sample **sample) { return (*sample = calloc(1, sizeof **sample)) ? SUCCESS : 20; }

int nvmlGpmSampleFree(gpm_sample *sample) {
    free(sample);
    return SUCCESS;
}

int nvmlGpmSampleGet(handle *device, gpm_sample *sample) {
    answer found;
    snprintf(sample->who, sizeof sample->who, "%s", device->name);
    return ask(device->name, "nvmlGpmSampleGet", NULL, &found);
}

int nvmlGpmMigSampleGet(handle *device, unsigned instance, gpm_sample *sample) {
    answer found;
    snprintf(sample->who, sizeof sample->who, "%s:%u", device->name, instance);
    return ask(sample->who, "nvmlGpmMigSampleGet", NULL, &found);
}

int nvmlGpmMetricsGet(gpm_request *request) {
    answer found;
    if (request->version != 1 || !request->first || !request->second || !*request->first->who) return INVALID;
    for (unsigned i = 0; i < request->count; i++) {
        char argument[16];
        snprintf(argument, sizeof argument, "%u", request->metrics[i].id);
        request->metrics[i].code = ask(request->second->who, "nvmlGpmMetricsGet", argument, &found);
        request->metrics[i].value = found.count ? strtod(found.values[0], NULL) : 0;
    }
    return SUCCESS;
}

/* --- the library: events --- */

typedef struct { handle *device; unsigned long long type, data; unsigned gpu_instance, compute_instance; } event_data;

int nvmlEventSetCreate(void **set) {
    answer found;
    *set = &events;
    int code = ask("", "nvmlEventSetCreate", NULL, &found);
    return code == NOT_SUPPORTED ? SUCCESS : code;
}

int nvmlEventSetFree(void *set) {
    (void)set;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(handle *device, unsigned long long types, void *set) {
    answer found;
    (void)types;
    (void)set;
    return ask(device->name, "nvmlDeviceRegisterEvents", NULL, &found);
}

int nvmlEventSetWait_v2(void *set, event_data *data, unsigned timeout_ms) {
    answer found;
    (void)set;
    (void)timeout_ms;
    int code = ask("", "nvmlEventSetWait", NULL, &found);
    if (code && code != NOT_SUPPORTED) return code;
    pthread_mutex_lock(&lock);
    code = TIMED_OUT;
    if (event_count) {
        memset(data, 0, sizeof *data);
        unsigned gpu = (unsigned)atoi(events[0].who);
        data->device = gpu < MAX_GPUS ? &gpus[gpu] : NULL;
        data->type = events[0].type;
        data->data = events[0].data;
        memmove(events, events + 1, sizeof events[0] * (size_t)--event_count);
        code = SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    return code;
}
