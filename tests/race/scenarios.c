/* SPDX-License-Identifier: MIT */
/*
 * scenarios.c - what is explored: scenarios written for a rule each; every pair of actions from
 * three beginnings, and private ones from a fourth; and any number drawn by lot. Words of the
 * scripts: script.c; options: world.c.
 */
#include "scenarios.h"

#include <stdio.h>
#include <string.h>

static const struct scenario written[] = {
	/* Write-back: 1.3, 6 */
	{"I1 a first write against write-back", "", "", {"write0", "sync"}},
	{"I2 two first writes against write-back", "", "", {"write0", "alias0", "flush sync"}},
	{"I3 a write after write-back began", "", "write0", {"write0", "sync"}},
	{"I3 two views against write-back", "", "write0 alias0", {"write0", "alias0", "sync"}},
	{"I4 stable pages, background and sync", "", "write0", {"write0 write0", "flush", "sync"}},
	{"6.2 a failed write-back stays dirty",
	 "fails write_fails=1",
	 "write0 write2",
	 {"write0", "sync", "flush"}},
	{"6.2 not yet", "fails not_yet=1", "write0", {"write0 sync", "flush sync"}},
	{"6.3 a writer against two syncs", "", "write0", {"write0 write2 write0", "sync", "msync"}},
	{"6.5 a failed fsync", "fails sync_fails=1", "write0", {"sync", "write0 sync"}},
	{"6.2 a failed last close", "fails write_fails=1", "write0", {"leave flush", "reclaim"}},
	{"6.2 a failed last close, manual",
	 "fails write_fails=1 manual",
	 "write0",
	 {"leave flush", "reclaim"}},
	{"6.3 sync of an object of no bytes", "", "write0 sync", {"empty sync", "flush"}},
	{"6.6 a limit of two pages", "dirty=2 pages=4", "", {"write0 write4", "write2 write6"}},
	{"S1.3 three writers at the limit",
	 "dirty=2 pages=4",
	 "",
	 {"write0 write2", "write4", "alias6"}},
	{"S1.3 the limit, nothing can be written",
	 "dirty=2 pages=3 manual denied",
	 "write0 write2",
	 {"write4", "sync"}},
	{"S1.3 the limit is lifted",
	 "dirty=2 pages=3 manual denied",
	 "write0 write2",
	 {"write4", "room write4"}},
	/* The callback: 2.3 to 2.5, 3 */
	{"2.5 one page by two views", "", "", {"write0", "alias0"}},
	{"2.5 a run that grows against a writer",
	 "grow",
	 "read0 read2",
	 {"write0", "alias2", "sync"}},
	{"S1.1 a refusal with a later success",
	 "holes refuse=1",
	 "",
	 {"write0 write0", "read0 alias0"}},
	{"S1.1 a refusal to one of two writers",
	 "holes refuse=1",
	 "read0",
	 {"write0", "alias0 alias0"}},
	{"S1.1 a refusal against sync and punch",
	 "holes refuse=2",
	 "",
	 {"write0 write0", "punch0 write2", "sync"}},
	{"3.3 a fill that fails", "fails fill_fails=1", "", {"read0 read0", "alias0"}},
	{"3.4 RETRY", "retry=2", "", {"write0", "alias0", "sync"}},
	{"3.4 NOPAGE", "nopage=2", "", {"write0", "alias0 sync"}},
	{"3.4 a fill that is to be tried again", "fill_retries=2", "", {"write0", "read0"}},
	{"S2.1 DEFER on a full store",
	 "defer holes refuse=1",
	 "",
	 {"write0 sync", "alias0", "sync"}},
	{"S4 WAIT for space", "wait holes refuse=1", "", {"write0", "wake"}},
	{"S4 WAIT for space, two writers", "wait holes refuse=2", "", {"write0", "alias2", "wake"}},
	/* Pages that go: 4, 5 */
	{"S4.1 0 answered while the page goes", "zero", "", {"write0", "punch0"}},
	{"S4.1 0 answered while the file is cut", "zero", "", {"write2", "shrink grow"}},
	{"S4.2 punched while asked", "", "", {"write0", "punch0", "alias0"}},
	{"S4.3 punched and extended", "", "", {"write2 read2", "punch1 shrink grow"}},
	{"S4.4 write-back the moment the callback returns",
	 "early",
	 "",
	 {"write0", "sync", "sync"}},
	{"S4.6 cut and grown while asked", "", "", {"write2", "shrink grow", "sync"}},
	{"5.1 shrink against two writers", "", "write2", {"write2", "alias2", "shrink"}},
	{"5.1 shrink against write-back", "", "write0 write2", {"shrink", "sync", "write2"}},
	{"5.1 a shrink that fails", "fails cut_fails=1", "write2", {"shrink", "write2 sync"}},
	{"5.2 punch against write-back", "", "write0", {"punch0", "sync", "write0"}},
	{"5.2 a punch that fails", "fails cut_fails=1", "write0", {"punch0", "write0 sync"}},
	{"5.2 punch against punch", "", "write0", {"punch0", "punch0", "write0"}},
	{"5.2 punch to the end against growth", "", "cut write0", {"wipe", "pwrite1"}},
	{"5.3 invalidate against a writer", "", "write0", {"invalidate", "write0", "alias0"}},
	{"5.3 discard", "manual", "write0", {"discard0", "write2 read2"}},
	{"5.4 extend against a writer of the last page",
	 "",
	 "cut write0",
	 {"write0", "grow write1", "sync"}},
	{"5.4 cut and grow against a writer of the tail",
	 "",
	 "write1",
	 {"write1", "cut grow", "read1"}},
	{"5.5 the end of the object", "", "", {"write2 read2", "shrink", "grow"}},
	/* Reclaim */
	{"reclaim against readers",
	 "resident=4 pages=4",
	 "read0 read2 read4 read6",
	 {"read0 peek0", "reclaim", "read4"}},
	{"reclaim against writers",
	 "resident=4 pages=4",
	 "write0 read2 read4 read6",
	 {"write0", "reclaim", "alias2"}},
	{"reclaim by need",
	 "resident=4 pages=4",
	 "other0 other2 write0 write2",
	 {"read4 write4", "other4", "write0"}},
	{"S2.3 reclaim inside the callback",
	 "resident=4 dirty=2 pages=4",
	 "read0 read2 read4",
	 {"write0 write6", "reclaim", "sync"}},
	{"3.4 OOM until reclaim has made room",
	 "memory=2 pages=4",
	 "read6 read0",
	 {"read4", "write6"}},
	/* Reservation, freeze */
	{"reserve against a writer and sync", "holes", "", {"reserve0", "write0", "sync"}},
	{"reserve against punch", "", "", {"hold0 letgo0", "punch0", "write0"}},
	{"a held page and write-back", "", "hold0", {"write0 letgo0", "sync", "flush"}},
	{"4.5 freeze against writers", "", "write2", {"write0", "alias2", "freeze"}},
	{"4.5 freeze against a question", "zero", "", {"write0", "freeze", "sync"}},
	{"4.5 freeze against pwrite", "", "", {"pwrite0", "freeze", "write2"}},
	{"4.5 freeze against truncate", "", "write2", {"freeze", "shrink grow"}},
	{"4.5 freeze against punch", "", "write2 sync", {"punch0", "freeze"}},
	{"4.5 two freezes", "", "write0", {"freeze", "freeze", "write0"}},
	/* Views, handles */
	{"S0.2 map while faults are served", "", "", {"map2 write0", "alias0", "sync"}},
	{"S0.3 another object at the address", "", "", {"alias0", "mapover0"}},
	{"S0.3 another object, and write-back",
	 "",
	 "alias0",
	 {"alias0 alias2", "mapover2", "sync"}},
	{"S0.3 another object while refused", "holes refuse=2", "", {"alias0 alias2", "mapover0"}},
	{"unmap against fault and write-back", "", "alias0", {"alias2", "unmap", "sync"}},
	{"unmap at the limit",
	 "dirty=2 pages=3 manual denied",
	 "write0 write2",
	 {"alias4", "unmap"}},
	{"close against write-back", "", "write0", {"close", "write0 sync"}},
	{"the last close against an opening", "", "write0", {"quit", "reopen0"}},
	{"the last close against two openings", "", "write0", {"quit", "reopen0", "reopen2"}},
	{"the last close fails",
	 "fails write_fails=1",
	 "write0",
	 {"quit", "reopen0 reopen0", "flush"}},
	{"the last close against write-back", "", "write0 alias2", {"quit", "flush", "flush"}},
	{"pread and pwrite against views", "", "", {"pwrite0 pread0", "write0 read0", "sync"}},
	{"pwrite against shrink", "", "", {"pwrite2", "shrink grow", "read2"}},
	{"5.4 a refused growth and a write in it",
	 "holes refuse=1",
	 "shrink",
	 {"pwrite2", "keep2"}},
	{"5.4 a growth refused after another's",
	 "holes refuse=1",
	 "shrink",
	 {"pwrite3", "pwrite2 keep2"}},
	{"pwrite against punch", "", "", {"pwrite0", "punch0", "read0"}},
	{"3.4 a refusal reaches its thread where it is",
	 "workers=2 pages=3",
	 "shrink",
	 {"write4 write0 write4", "read4 read0 write4"}},
	{"3.4 a refusal and a page that comes",
	 "workers=2 pages=3",
	 "shrink",
	 {"write4 write0", "write4 read0", "grow"}},
	{"small: S4.5 punched and asked anew while asked",
	 "inline",
	 "",
	 {"write0", "punch0 alias0"}},
	{"two handler threads", "workers=2", "", {"write0", "alias2", "punch1", "sync"}},
	/* Pins: 2.10 */
	{"6.3 a pinned page against two syncs", "", "", {"pin0", "sync sync", "sync"}},
	{"6.3 a pinned page against sync and background",
	 "",
	 "write0",
	 {"pin0 pin0", "flush", "sync"}},
	{"I4 two pins, another view, write-back", "", "", {"pin0", "pin0 alias0", "sync"}},
	{"6.2 a pinned page that fails", "fails write_fails=1", "", {"pin0", "sync", "sync"}},
	{"4.5 a pinned page against a freeze", "", "", {"pin0", "freeze", "sync"}},
	{"4.5 a pinned page against two freezes", "", "write0", {"pin0", "freeze", "freeze"}},
	{"5.1 a pinned page that is cut off", "", "write2", {"pin2", "shrink grow", "sync"}},
	{"5.2 a pinned page that is punched", "", "", {"pin0 write0", "punch0", "sync"}},
	{"5.3 a pinned page against invalidate", "", "", {"pin0", "invalidate", "look0"}},
	{"5.3 a pinned page is not discarded",
	 "manual",
	 "clamp0 write0",
	 {"discard0", "write0 read0"}},
	{"S0.5 a pin, NOPAGE and a punch", "nopage=2", "", {"pin0", "punch0"}},
	{"S1.1 a pin that is refused", "holes refuse=1", "", {"pin0 pin0", "sync"}},
	{"S1.3 pins at the limit", "dirty=2 pages=4 denied", "", {"pin0 write2", "pin4", "sync"}},
	{"reclaim against pins",
	 "resident=4 pages=4 denied",
	 "read0 read2 read4 read6",
	 {"look0 pin2", "reclaim", "other0 read4"}},
	{"small: 6.3 a pinned page that is written to between two syncs",
	 "inline",
	 "clamp0 write0",
	 {"sync", "write0 sync"}},
	{"small: I1 a pinned page and two syncs", "inline", "clamp0 write0", {"sync", "sync"}},
	{"small: 5.2 a pinned page that is punched",
	 "inline",
	 "clamp0 write0",
	 {"sync", "punch0 write0"}},
	{"small: 6.2 the end of a pin and a sync",
	 "inline",
	 "clamp0 write0",
	 {"sync", "unclamp write0 flush"}},
	{"4.5 a pinned page, written to in a freeze",
	 "inline",
	 "clamp0 write0",
	 {"freeze", "write0 sync"}},
	{"4.5 the end of a pin in a freeze",
	 "inline",
	 "clamp0 write0",
	 {"freeze", "unclamp write0 flush"}},
	{"the last close against a pin", "", "", {"pin0", "close", "flush"}},
	/* Views that change: 2.9, 7.3 */
	{"2.9 read-only and back against write-back",
	 "",
	 "alias0",
	 {"flip", "alias0 alias2", "sync"}},
	{"2.9 read-only and back, another view writes", "", "", {"flip", "write0 alias0", "sync"}},
	{"2.9 read-only and back, inline", "inline", "alias0", {"flip", "alias0", "sync"}},
	{"7.3 a page mapped anew under its writer", "", "", {"remap0", "write0 write0", "sync"}},
	{"7.3 mapped anew, another view, write-back", "", "write0", {"remap0", "alias0", "sync"}},
	{"7.3 mapped anew, inline", "inline", "", {"remap0", "write0", "sync"}},
	{"7.3 mapped anew against a punch", "", "write0", {"remap0", "write0", "punch0"}},
	{"7.3 mapped anew against invalidate", "", "", {"remap2", "write2", "invalidate"}},
	{"7.3 two that map anew", "", "", {"remap0", "remap2", "write0 write2"}},
	{"7.3 a view is split under a question", "", "", {"split0", "write0", "alias0"}},
	{"7.3 split at the limit",
	 "dirty=2 pages=4 denied",
	 "",
	 {"split0", "write0 write2", "write4"}},
	{"7.3 split against a reservation", "holes", "", {"split0", "reserve0", "write0"}},
	{"7.3 split against a pin", "", "", {"split0", "pin0", "sync"}},
	{"S0.3 split while frozen", "", "chill", {"write0", "split0", "thaw"}},
	/* Small enough for all orders with two deviations (scripts/mutants) */
	{"small: S0.1 a call whose page goes while asked", "zero", "", {"pwrite0", "punch0"}},
	{"small: S0.3 unmapped while frozen", "inline", "chill", {"alias0", "unmap thaw"}},
	{"small: S1.3 writers of two objects and room for one",
	 "inline manual denied dirty=2 pages=3",
	 "write0",
	 {"write2", "other2"}},
	{"small: 6.6 room that comes",
	 "inline dirty=2 pages=3",
	 "write0 write2",
	 {"write4", "sync"}},
	{"small: S4.1 0 answered while the page goes", "zero inline", "", {"write0", "punch0"}},
	{"small: S4.5 punched and read again while asked",
	 "inline",
	 "",
	 {"write0", "punch0 read0"}},
	{"small: 6.3 a failure that another sync met",
	 "fails write_fails=1",
	 "write0",
	 {"sync", "msync"}},
	{"small: 4.5 a truncate under way when frozen", "", "", {"shrink", "freeze"}},
	{"small: 4.5 a write when frozen", "inline", "", {"write0", "freeze"}},
	{"small: 5.4 grow after a write past the end", "inline", "cut", {"write1", "grow"}},
	/* Private views: 2.6, I6. The store is asked for none of their writes. */
	{"2.6 a first write of a private view", "", "", {"mine0 see0", "write0 read0"}},
	{"2.6 a copy against who reads the view", "", "see0", {"mine0", "see0 see0", "write0"}},
	{"2.6 two writers of a private page", "workers=2", "", {"mine0", "mine1 see0", "see1"}},
	{"2.6 a private write against write-back", "", "write0", {"mine0", "sync", "write0"}},
	{"2.6 the machine takes the frame", "", "see0", {"mine0 see0", "shake", "see0"}},
	{"I6 a copy is written in place", "", "mine0", {"mine0 mine1", "see0 see1", "write0"}},
	{"I6 two private views", "", "", {"mine0", "theirs0 spy0", "see0"}},
	{"I6 two private views that have copied",
	 "",
	 "mine0 theirs0",
	 {"mine0 see0", "theirs1 spy0", "write0"}},
	{"5.1 private copies made while the object is cut",
	 "",
	 "see2",
	 {"mine2", "shrink", "see2"}},
	{"5.1 private copies against shrink and grow",
	 "",
	 "mine2",
	 {"mine2 see2", "shrink grow", "see2"}},
	{"5.1 a shrink that fails keeps private copies",
	 "fails cut_fails=1",
	 "mine2",
	 {"shrink", "mine2 see2"}},
	{"5.2 punch leaves private copies", "", "mine0", {"punch0", "mine0 see0", "see1"}},
	{"5.2 punch against a first private write", "", "see0", {"punch0", "mine0 see0"}},
	{"5.3 invalidate leaves private copies", "", "mine0", {"invalidate", "mine1 see0"}},
	{"5.3 invalidate against a first private write",
	 "",
	 "see0",
	 {"invalidate", "mine0 see0", "write0"}},
	{"5.3 discard leaves private copies",
	 "manual",
	 "mine0 write0",
	 {"discard0", "mine0 see0", "see2"}},
	{"DONTNEED against a private write", "", "mine0", {"drop0", "mine0 see0", "see0"}},
	{"DONTNEED against a first private write", "", "see0", {"drop0 see0", "mine0 see0"}},
	{"DONTNEED twice", "", "mine0", {"drop0", "drop0 mine0", "see0"}},
	{"a private page dropped behind the library's back",
	 "",
	 "mine0",
	 {"toss0 see0", "mine0 see0", "reclaim"}},
	{"a grant taken back from a writer",
	 "resident=4 pages=3 denied",
	 "see2 see4",
	 {"mine0 see0", "reclaim", "read2"}},
	{"S3.1 a copy written while the page below it is locked",
	 "pages=3 denied",
	 "see0 see2 see4 mine0 tight reclaim settle",
	 {"pwrite0", "mine0 see0", "sync"}},
	{"small: a grant taken back while it is used",
	 "inline pages=4 denied",
	 "see0 see2 see4 mine0 mine2 tight reclaim",
	 {"mine4 see4"}},
	{"a grant taken back, and its page read",
	 "resident=4 pages=3 denied",
	 "mine0 see2",
	 {"mine2 see0", "reclaim", "see0 see2"}},
	{"unused grants taken back",
	 "memory=4 pages=4 denied",
	 "see0 see2 mine0 mine2",
	 {"mine4 see2", "see6", "mine2"}},
	{"reclaim of the page below a private write",
	 "resident=4 pages=4 denied",
	 "see0 read2 read4",
	 {"mine0", "reclaim", "see0 see6"}},
	{"room for one private page",
	 "resident=4 pages=3 denied",
	 "read0 read2 read4",
	 {"mine0 see0", "theirs2", "reclaim"}},
	{"private writers past the resident limit",
	 "resident=4 pages=4 denied",
	 "mine0 mine2",
	 {"mine4", "mine6 see0", "see2"}},
	{"unmap against a private write", "", "mine0", {"part", "mine0 mine2", "see0"}},
	{"unmap against reclaim of a private page",
	 "resident=4 denied",
	 "mine0 mine2",
	 {"part", "reclaim", "mine1"}},
	{"a private view mapped anew", "", "mine0", {"anew see0", "mine0", "punch0"}},
	{"a private view mapped anew against truncate", "", "mine2", {"anew mine2", "shrink grow"}},
	/* Swap: 2.8, S0.6, S3.4 */
	{"2.8 a page swapped out against its writer",
	 "swap",
	 "mine0 mine2",
	 {"out0", "mine0 see0", "see1"}},
	{"2.8 a page swapped in by two threads",
	 "swap workers=2",
	 "mine0 mine3 out0 out1",
	 {"mine0 see3", "see0 mine1", "out0"}},
	{"2.8 reads next to a page in the swap file",
	 "swap pages=3",
	 "mine4 out2 read0 read2 read4 shake",
	 {"see0 see2 see4", "mine0"}},
	{"S0.6 a write to a page in the swap file",
	 "swap",
	 "mine0 out0",
	 {"mine0 see0", "write0 shake", "see0"}},
	{"S3.4 two private views swapped out",
	 "swap",
	 "mine0 theirs0",
	 {"out0 mine0", "theirs0 spy0", "out0"}},
	{"S3.4 swapped out and in against DONTNEED",
	 "swap",
	 "mine0 out0",
	 {"mine1 see0", "drop0 see0", "out0"}},
	{"S3.4 swapped out against DONTNEED", "swap", "mine0", {"out0", "drop0 see0", "mine1"}},
	{"5.1 a page in the swap file and shrink",
	 "swap",
	 "mine2 out1",
	 {"mine2 see2", "shrink grow", "see2"}},
	{"5.1 a page on its way out and shrink", "swap", "mine2", {"out1", "shrink grow", "mine2"}},
	{"5.2 punch leaves what is in the swap file",
	 "swap",
	 "mine0 out0",
	 {"punch0", "mine1 see0", "see0"}},
	{"unmap against swapping out and in", "swap", "mine0 mine2 out0", {"part", "see0", "out1"}},
	{"a swap file that fails", "swap swap_fails=1", "mine0", {"out0 out0", "mine0 see1"}},
	{"a swap file that is full",
	 "swap=2 pages=4 resident=4 denied",
	 "mine0 mine2 mine4",
	 {"mine6 see0", "see2", "mine1"}},
	{"copies past the resident limit go to the swap file",
	 "swap pages=4 resident=4",
	 "mine0 mine2 mine4",
	 {"mine6 see0", "see2 mine2"}},
	{"a page dropped behind the library's back on its way out",
	 "swap",
	 "mine0",
	 {"out0", "toss0 see0"}},
	{"a cold page and its reader", "swap resident=4 pages=3", "mine0", {"cold0", "see0 mine0"}},
	{"inline: swapped out and in", "inline swap", "mine0 mine2", {"out0 see0", "mine0 see0"}},
	/* Pins: 2.7, 2.10, S3.1 */
	{"2.10 a device against write-back", "", "", {"grip0 device0 ungrip", "sync", "write1"}},
	{"2.10 a pinned page, synced twice",
	 "",
	 "grip0",
	 {"device0 device1 ungrip", "sync", "sync"}},
	{"2.10 a pinned page and the flusher",
	 "",
	 "grip0",
	 {"device0 ungrip", "flush", "write1 sync"}},
	{"2.10 a pinned page that is punched", "", "grip0", {"punch0", "device0 ungrip", "sync"}},
	{"2.10 a pinned page that is cut off",
	 "",
	 "grip1",
	 {"shrink grow", "device2 ungrip", "write2"}},
	{"2.10 a pinned page and reclaim",
	 "resident=4 pages=4 denied",
	 "grip0 read2 read4",
	 {"device0 ungrip", "reclaim", "read6"}},
	{"2.10 a pin while write-back fails",
	 "fails write_fails=1",
	 "grip0",
	 {"device0 ungrip", "sync", "flush"}},
	{"2.10 a pin of a page that is frozen",
	 "",
	 "",
	 {"grip0 device0 ungrip", "freeze", "write0"}},
	{"S0.5 a pin that is told NOPAGE",
	 "nopage=2",
	 "",
	 {"grip0 device0 ungrip", "punch0", "sync"}},
	{"4.5 a freeze while pinned", "", "grip0", {"freeze", "device0 ungrip", "write2"}},
	{"S3.1 a pinned private page keeps its frame",
	 "",
	 "mine0 ownpin0",
	 {"mine0 see0", "owndevice1 ownunpin", "write0"}},
	{"S3.1 a private page pinned while it is copied",
	 "",
	 "see0",
	 {"mine0 see1", "ownpin0 owndevice1", "write0"}},
	{"S3.1 a pinned private page and reclaim",
	 "resident=4 pages=3 denied",
	 "mine0 ownpin0 see2",
	 {"mine0 see0", "reclaim", "owndevice1 see4 see1"}},
	{"S3.1 a pinned private page and the swap file",
	 "swap",
	 "mine0",
	 {"ownpin0 owndevice1 ownunpin", "out0 out0", "mine0 see1"}},
	{"S3.4 a pin of a page in the swap file",
	 "swap",
	 "mine0 out0",
	 {"ownpin0 owndevice0", "see0 mine1", "out0"}},
	{"5.1 a pinned private page that is cut off",
	 "",
	 "mine2 ownpin1",
	 {"shrink grow", "owndevice2 ownunpin", "see2"}},
	{"a pinned private page and DONTNEED",
	 "",
	 "mine0 ownpin0",
	 {"drop0", "owndevice0", "mine1 see0"}},
	{"a pinned private page and unmap",
	 "",
	 "mine0 ownpin0",
	 {"part", "owndevice0 ownunpin", "mine0"}},
	/* Views that change: 2.9, 7.5, S3.3 */
	{"2.9 writes are allowed again, and write-back",
	 "",
	 "alias0 dim",
	 {"bright alias0", "sync", "write0"}},
	{"2.9 writes are forbidden under a writer",
	 "",
	 "",
	 {"alias0 alias0", "dim bright", "sync"}},
	{"S3.3 a pinned private page, read-only and writable again",
	 "",
	 "mine0 ownpin0",
	 {"ro rw mine0 see1", "owndevice1", "see0"}},
	{"S3.3 a private page, read-only and writable again",
	 "",
	 "see0",
	 {"ro rw", "mine0 see0", "write0 see2"}},
	{"7.5 a view that moves under its writer",
	 "",
	 "alias0",
	 {"alias0 alias0", "shift alias2", "sync"}},
	{"7.5 a view that moves and truncate", "", "alias2", {"shift", "shrink grow", "alias2"}},
	{"7.5 a private view that moves under its writer",
	 "",
	 "mine0",
	 {"mine0 mine2", "move see0", "punch0"}},
	{"7.5 a private view that moves and truncate",
	 "",
	 "mine2",
	 {"move see2", "shrink grow", "mine2"}},
	{"7.5 a private view that moves and the swap file",
	 "swap",
	 "mine0 mine2 out0",
	 {"move see0", "out1 out0", "mine2"}},
	{"7.5 a private view that moves, and a device",
	 "",
	 "mine0 ownpin0",
	 {"move see1", "owndevice1", "mine0"}},
	{"small: 2.9 writes are allowed again",
	 "inline",
	 "alias0 sync dim",
	 {"bright alias0", "sync"}},
	{"private writes of a frozen object", "", "mine0", {"mine0 mine2", "freeze", "write0"}},
	{"private writes, inline",
	 "inline resident=4 pages=3 denied",
	 "mine0 see2",
	 {"mine2 see0", "reclaim", "mine1 see1"}},
	{"small: 2.6 a copy and a reader", "inline", "see0", {"mine0", "see0 see1"}},
	{"small: a grant taken back from its writer",
	 "inline resident=4 pages=3 denied",
	 "see0 mine2",
	 {"mine0 see0", "reclaim"}},
	{"small: 5.1 a private copy while the object is cut",
	 "inline",
	 "see2",
	 {"mine2", "shrink grow see2"}},
	{"small: DONTNEED and a private write", "inline", "mine0", {"drop0", "mine0 see0"}},
	/* Back from the swap file it is writable at once, and nothing protects it before it goes.
	 */
	{"small: S3.4 swapped out again and its writer",
	 "inline swap",
	 "mine0 out0 mine0",
	 {"out0", "mine0 see0"}},
};
#define WRITTEN (sizeof(written) / sizeof(*written))

static const char *const actions[] = {
	"write0",   "alias0", "read0",	    "sync",    "flush",	   "shrink", "cut",
	"grow",	    "punch0", "invalidate", "reclaim", "reserve0", "freeze", "unmap",
	"mapover0", "map2",   "close",	    "pwrite0", "pread0",
};
#define ACTIONS (sizeof(actions) / sizeof(*actions))

static const struct {
	const char *name, *options, *before;
} beginnings[] = {
	{"fresh", "resident=4 dirty=2", ""},
	{"dirty", "resident=4", "write0 alias2"},
	{"inline", "inline resident=4 dirty=2", "read0"},
};
#define BEGINNINGS (sizeof(beginnings) / sizeof(*beginnings))

#define PAIRS (ACTIONS * (ACTIONS + 1) / 2)

/* From a beginning of their own: the private ones with each other and with those after them. */
static const char *const private_actions[] = {
	"mine0", "drop0", "out0", "ownpin0", "part", "shrink", "punch0", "reclaim",
};
#define PRIVATE		4u
#define PRIVATE_ACTIONS (sizeof(private_actions) / sizeof(*private_actions))
#define PRIVATE_PAIRS	(PRIVATE * PRIVATE_ACTIONS - PRIVATE * (PRIVATE - 1) / 2)

size_t scenario_count(void)
{
	return WRITTEN + BEGINNINGS * PAIRS + PRIVATE_PAIRS;
}

/* ---- By lot ------------------------------------------------------------------------------- */

static uint64_t lot_state;

static unsigned lot(unsigned below)
{
	uint64_t z = lot_state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (unsigned)((z ^ z >> 31) % below);
}

static const char *one_of(const char *const *words, unsigned count)
{
	return words[lot(count)];
}
#define ONE_OF(words) one_of((words), sizeof(words) / sizeof(*(words)))

static const char *const lot_verbs[] = {
	"write0", "write1", "write2",	  "write4",   "alias0",	  "alias2",  "alias4",	"read0",
	"read2",  "read4",  "peek0",	  "pread0",   "pwrite0",  "pwrite2", "pwrite4", "sync",
	"sync",	  "flush",  "flush",	  "reclaim",  "msync",	  "shrink",  "cut",	"grow",
	"punch0", "punch1", "invalidate", "reserve0", "reserve1", "freeze",  "write0",	"write2",
	"mine0",  "mine2",  "see0",	  "theirs0",  "drop0",	  "out0",
};
static const char *const lot_answers[] = {"", "early", "zero", "grow"};
static const char *const lot_limits[] = {
	"", "", "dirty=2", "resident=4 denied", "dirty=2 resident=4 denied", "resident=5 denied",
};
static const char *const lot_failures[] = {
	"",
	"",
	"",
	"holes",
	"holes refuse=2",
	"retry=2",
	"nopage=2",
	"fails write_fails=2",
	"fails not_yet=2",
	"fails sync_fails=1",
	"fails cut_fails=1",
	"fails fill_fails=1",
	"defer holes refuse=2",
	"fill_retries=2",
};
static const char *const lot_machines[] = {"", "swap", "inline", "workers=2"};
static const char *const lot_sizes[] = {"pages=2", "pages=3", "pages=4"};
static const char *const lot_befores[] = {
	"", "write0 write2", "read0 read2", "write0 alias2 read0", "cut write0", "write2 sync",
};

/* The scenario of a number above the others: a function of it alone. */
static const struct scenario *scenario_by_lot(size_t n)
{
	static char name[40], options[160], programs[PROGRAMS_MAX][64];
	static struct scenario made;
	unsigned threads;

	lot_state = n;
	made = (struct scenario){.name = name, .options = options};
	snprintf(name, sizeof(name), "lot %zu", n);
	snprintf(options, sizeof(options), "%s %s %s %s %s", ONE_OF(lot_sizes), ONE_OF(lot_answers),
		 ONE_OF(lot_limits), ONE_OF(lot_failures), ONE_OF(lot_machines));
	made.before = ONE_OF(lot_befores);
	threads = 2 + lot(3);
	for (unsigned t = 0; t < threads; t++) {
		unsigned words = 1 + lot(3);
		size_t length = 0;

		for (unsigned w = 0; w < words; w++)
			length +=
				(size_t)snprintf(programs[t] + length, sizeof(programs[t]) - length,
						 "%s%s", w > 0 ? " " : "", ONE_OF(lot_verbs));
		made.programs[t] = programs[t];
	}
	return &made;
}

/* ---- All ---------------------------------------------------------------------------------- */

/* One view can be unmapped once, one handle closed. */
static const char *second_of(size_t a, size_t b)
{
	static const char *const once[] = {"unmap", "mapover0", "close"};

	for (size_t i = 0; i < 3 && a == b; i++)
		if (actions[a] == actions[b] && strcmp(actions[a], once[i]) == 0)
			return "write2";
	if ((strcmp(actions[a], "unmap") == 0 && strcmp(actions[b], "mapover0") == 0))
		return "write2";
	return actions[b];
}

static const struct scenario *pair_make(const char *beginning, const char *options,
					const char *before, const char *one, const char *two)
{
	static struct scenario made;
	static char name[80];

	snprintf(name, sizeof(name), "pair %s: %s, %s", beginning, one, two);
	made = (struct scenario){
		.name = name,
		.options = options,
		.before = before,
		.programs = {one, two},
	};
	return &made;
}

static const struct scenario *private_pair(size_t n)
{
	size_t a = 0, b = n;

	while (b >= PRIVATE_ACTIONS - a) {
		b -= PRIVATE_ACTIONS - a;
		a++;
	}
	b += a;
	return pair_make("private", "swap resident=5 dirty=2", "mine0 theirs2 see2",
			 private_actions[a], private_actions[b]);
}

const struct scenario *scenario(size_t n)
{
	size_t a = 0, b;

	if (n < WRITTEN)
		return &written[n];
	if (n >= scenario_count())
		return scenario_by_lot(n - scenario_count());
	n -= WRITTEN;
	if (n >= BEGINNINGS * PAIRS)
		return private_pair(n - BEGINNINGS * PAIRS);
	b = n % PAIRS;
	while (b >= ACTIONS - a) {
		b -= ACTIONS - a;
		a++;
	}
	b += a;
	return pair_make(beginnings[n / PAIRS].name, beginnings[n / PAIRS].options,
			 beginnings[n / PAIRS].before, actions[a], second_of(a, b));
}
