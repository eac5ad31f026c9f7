/* SPDX-License-Identifier: MIT */
/*
 * trace_recorder.h - from the events of a run to records in a trace file, with what they need to be
 * understood later: the files, command lines, and the modules in which the callers lie. What
 * `mkwrite run` uses; it has one thread.
 */
#ifndef TRACE_RECORDER_H
#define TRACE_RECORDER_H

#include "run/control.h"

struct trace_recorder;

/* Make the file. 0 or -errno. Before any program is started. */
int trace_recorder_create(const char *path, struct trace_recorder **recorder);
/* An event as run_next gave it; those that do not belong into a trace are passed over. Reads
 * /proc/PID now and then: the sooner it comes after the event, the better. */
void trace_recorder_take(struct trace_recorder *recorder, const struct run_control *control,
			 const struct run_event *event);
/* When nothing is to be done: what was taken goes to the file. 0, or -errno: the disk of the trace
 * is full, say; it is tried again with what comes next. */
int trace_recorder_flush(struct trace_recorder *recorder);
/* The program has ended with that wait status; lost: the events that never came. 0 or -errno:
 * something is missing in the trace. */
int trace_recorder_close(struct trace_recorder *recorder, int wait_status, uint64_t lost);

#endif
