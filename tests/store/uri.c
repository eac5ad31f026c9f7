/* SPDX-License-Identifier: MIT */
/* uri.c - URIs, options and the table of drivers. */
#include "store/double.h"

#include <limits.h>
#include <unistd.h>

static int try_uri(const char *uri, unsigned flags)
{
	struct opened o;
	int error = store_try(&o, uri, flags);

	if (!error)
		store_close(&o);
	return error;
}

#define CHECK_REFUSED(uri, error, says)               \
	do {                                          \
		CHECK_EQ(try_uri((uri), 0), (error)); \
		CHECK_SAYS(says);                     \
	} while (0)

TEST(uri_scheme, "a URI without a known scheme is refused, and the known ones are named")
{
	CHECK_REFUSED("", -EINVAL, "does not begin with a scheme");
	CHECK_REFUSED("data.db", -EINVAL, "file:data.db");
	CHECK_REFUSED("/data.db", -EINVAL, "file:data.db");
	CHECK_REFUSED(":x", -EINVAL, "does not begin with a scheme");
	CHECK_REFUSED("MEM:1", -EINVAL, "does not begin with a scheme");
	CHECK_REFUSED("nosuch:x", -EINVAL, "unknown scheme \"nosuch\"");
	CHECK_REFUSED("nosuch:x", -EINVAL, "mem, file, error, delay");
	CHECK_REFUSED("mem", -EINVAL, "does not begin with a scheme");
	CHECK_EQ(mkw_store_open(NULL, 0, NULL), -EINVAL);
}

TEST(uri_path, "an empty path, a bad escape, a NUL: refused with a sentence")
{
	CHECK_REFUSED("mem:", -EINVAL, "mem:PATH");
	CHECK_REFUSED("file:?quota=1M", -EINVAL, "file:PATH");
	CHECK_REFUSED("file?quota=1M:x", -EINVAL, "behind the path");
	CHECK_REFUSED("file:a%", -EINVAL, "two hexadecimal digits");
	CHECK_REFUSED("file:a%4", -EINVAL, "two hexadecimal digits");
	CHECK_REFUSED("file:a%g0", -EINVAL, "two hexadecimal digits");
	CHECK_REFUSED("file:a%00b", -EINVAL, "NUL");
	CHECK_REFUSED("mem:1M?quota=%00", -EINVAL, "NUL");
	CHECK_REFUSED("error:", -EINVAL, "error:mem:1M");
	CHECK_REFUSED("error?op=fault", -EINVAL, "is a layer");
	CHECK_REFUSED("error:nonsense", -EINVAL, "does not begin with a scheme");
}

TEST(uri_options, "unknown, repeated, nameless and bad options are refused")
{
	CHECK_REFUSED("mem:1M?colour=red", -EINVAL, "it knows quota, name");
	CHECK_REFUSED("file:x?name=a", -EINVAL, "it knows quota, extent, direct");
	CHECK_REFUSED("delay?x=1:mem:1M", -EINVAL, "it knows us, op");
	CHECK_REFUSED("mem:1M?quota=1&quota=2", -EINVAL, "quota is given twice");
	CHECK_REFUSED("mem:1M?quota=1&%71uota=2", -EINVAL, "quota is given twice");
	CHECK_REFUSED("mem:1M?", -EINVAL, "without a name");
	CHECK_REFUSED("mem:1M?=1", -EINVAL, "without a name");
	CHECK_REFUSED("mem:1M?quota=1&", -EINVAL, "without a name");
	CHECK_REFUSED("mem:1M?quota=-1", -EINVAL, "quota=-1 is not a size");
	CHECK_REFUSED("mem:1M?quota", -EINVAL, "is not a size");
	CHECK_REFUSED("mem:lots", -EINVAL, "is not a size");
	CHECK_REFUSED("mem:8388608T", -EINVAL, "too large");
	CHECK_REFUSED("mem:1M?name=", -EINVAL, "a name has 1 to");
	CHECK_REFUSED("file:x?extent=3M", -EINVAL, "power of two");
	CHECK_REFUSED("file:x?extent=1", -EINVAL, "power of two");
	CHECK_REFUSED("file:x?direct=maybe", -EINVAL, "1, yes or on");
	CHECK_REFUSED("delay?us=x:mem:1M", -EINVAL, "whole number from 0");
	CHECK_REFUSED("delay?op=none:mem:1M", -EINVAL, "page_mkwrite");
	CHECK_REFUSED("error?op=write:mem:1M", -EINVAL, "page_mkwrite");
	CHECK_REFUSED("error?errno=EWHAT:mem:1M", -EINVAL, "ENOSPC or 28");
	CHECK_REFUSED("error?nth=0:mem:1M", -EINVAL, "from 1");
	CHECK_REFUSED("error?prob=0.5:mem:1M", -EINVAL, "1/N");
	CHECK_REFUSED("error?prob=1/0:mem:1M", -EINVAL, "from 1");
	CHECK_REFUSED("error?range=5-4:mem:1M", -EINVAL, "from 5");
	CHECK_REFUSED("error?range=x:mem:1M", -EINVAL, "range");
	CHECK_REFUSED("error?code=LOCKED:mem:1M", -EINVAL, "NOPAGE");
	CHECK_REFUSED("error?op=fsync&code=RETRY:mem:1M", -EINVAL, "op=fault");
	CHECK_REFUSED("error?op=fault&code=RETRY&errno=5:mem:1M", -EINVAL, "exclude");
}

TEST(uri_length, "a URI that is too long, too many options, too many layers: refused")
{
	size_t size = 20000;
	char *uri = malloc(size);

	REQUIRE(uri != NULL);
	memset(uri, 'a', size);
	memcpy(uri, "file:", 5);
	uri[size - 1] = '\0';
	CHECK_REFUSED(uri, -ENAMETOOLONG, "longer than 16384 bytes");
	uri[16384] = '\0';
	CHECK_EQ(try_uri(uri, 0), -ENAMETOOLONG);
	CHECK_SAYS("cannot be opened");
	strcpy(uri, "mem:1M?a0=1");
	for (int i = 1; i < 100; i++)
		sprintf(uri + strlen(uri), "&a%d=1", i);
	CHECK_REFUSED(uri, -EINVAL, "more than 64 options");
	uri[0] = '\0';
	for (int i = 0; i < 15; i++)
		strcat(uri, "delay:");
	char *end = uri + strlen(uri);

	strcpy(end, "mem:1M");
	CHECK_EQ(try_uri(uri, 0), 0);
	strcpy(end, "delay:mem:1M");
	CHECK_REFUSED(uri, -EINVAL, "more than 16 layers");
	strcpy(end, "mem:1M");
	CHECK_EQ(try_uri(uri, 0), 0);
	free(uri);
}

TEST(uri_flags, "flags that make no sense together are refused")
{
	CHECK_EQ(try_uri("mem:1M", 0x100), -EINVAL);
	CHECK_SAYS("0x100");
	CHECK_EQ(try_uri("mem:1M", MKW_CREATE), -EINVAL);
	CHECK_EQ(try_uri("mem:1M", MKW_TRUNC), -EINVAL);
	CHECK_EQ(try_uri("mem:1M", MKW_RDWR | MKW_EXCL), -EINVAL);
	CHECK_EQ(try_uri("mem:1M", MKW_RDWR | MKW_CREATE | MKW_EXCL | MKW_MANUAL), 0);
}

TEST(uri_decoding, "paths and options are percent decoded, once")
{
	char directory[] = "/tmp/mkwrite-uri-XXXXXX";
	struct opened o;

	REQUIRE(mkdtemp(directory) != NULL);
	REQUIRE_EQ(chdir(directory), 0);
	store_open(&o, MKW_RDWR | MKW_CREATE, "file:a%%3Fb%%25c%%2541?quot%%61=64%%4d");
	CHECK_EQ(access("a?b%c%41", F_OK), 0);
	uint64_t free_bytes, total;

	CHECK_EQ(o.ops->capacity(o.store, &free_bytes, &total), 0);
	CHECK_EQ(total, 64 << 20);
	store_close(&o);
	CHECK_EQ(unlink("a?b%c%41"), 0);
	store_open(&o, MKW_RDWR | MKW_CREATE, "delay?op=fault:error:file:b%%3F?extent=4K");
	CHECK_EQ(access("b?", F_OK), 0);
	CHECK(o.args.path == NULL && o.args.options == NULL);
	store_close(&o);
	CHECK_EQ(unlink("b?"), 0);
	CHECK_EQ(rmdir(directory), 0);
}

TEST(option_values, "sizes, numbers, truths and errno names")
{
	uint64_t n;
	bool flag;
	int number;

	CHECK_EQ(mkw_parse_size("k", "0", &n), 0);
	CHECK_EQ(n, 0);
	CHECK_EQ(mkw_parse_size("k", "3k", &n), 0);
	CHECK_EQ(n, 3072);
	CHECK_EQ(mkw_parse_size("k", "2T", &n), 0);
	CHECK_EQ(n, 2ll << 40);
	CHECK_EQ(mkw_parse_size("k", "9223372036854775807", &n), 0);
	CHECK_EQ(n, INT64_MAX);
	CHECK_EQ(mkw_parse_size("k", "9223372036854775808", &n), -EINVAL);
	CHECK_EQ(mkw_parse_size("k", "99999999999999999999999", &n), -EINVAL);
	CHECK_EQ(mkw_parse_size("k", "8388607T", &n), 0);
	CHECK_EQ(mkw_parse_size("k", "8388608T", &n), -EINVAL);
	static const char *const bad[] = {"",	"M",	" 1",	"1 ",  "+1",
					  "-1", "1.5M", "0x10", "1MB", "1P"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		CHECK_EQ(mkw_parse_size("key7", bad[i], &n), -EINVAL);
	CHECK_SAYS("key7");
	CHECK_EQ(mkw_parse_uint("k", "5", 5, 7, &n), 0);
	CHECK_EQ(n, 5);
	CHECK_EQ(mkw_parse_uint("k", "4", 5, 7, &n), -EINVAL);
	CHECK_EQ(mkw_parse_uint("k", "8", 5, 7, &n), -EINVAL);
	CHECK_EQ(mkw_parse_uint("k", "18446744073709551615", 0, UINT64_MAX, &n), 0);
	CHECK_EQ(mkw_parse_uint("k", "18446744073709551616", 0, UINT64_MAX, &n), -EINVAL);
	CHECK(mkw_parse_bool("k", "", &flag) == 0 && flag);
	CHECK(mkw_parse_bool("k", "on", &flag) == 0 && flag);
	CHECK(mkw_parse_bool("k", "no", &flag) == 0 && !flag);
	CHECK_EQ(mkw_parse_bool("k", "2", &flag), -EINVAL);
	CHECK(mkw_parse_errno("k", "ENOSPC", &number) == 0 && number == ENOSPC);
	CHECK(mkw_parse_errno("k", "122", &number) == 0 && number == EDQUOT);
	CHECK(mkw_parse_errno("k", "EWOULDBLOCK", &number) == 0 && number == EAGAIN);
	CHECK(mkw_parse_errno("k", "ENOTSUP", &number) == 0 && number == EOPNOTSUPP);
	CHECK_EQ(mkw_parse_errno("k", "0", &number), -EINVAL);
	CHECK_EQ(mkw_parse_errno("k", "134", &number), -EINVAL);
	CHECK_EQ(mkw_parse_errno("k", "enospc", &number), -EINVAL);
}

/* ---- Drivers of one's own ----------------------------------------------------------------- */

static int own_open(struct mkw_open_args *args)
{
	CHECK_STR(args->scheme, "own");
	CHECK_STR(args->path, "a b");
	REQUIRE_EQ(args->option_count, 1);
	CHECK_STR(args->options[0].key, "depth");
	CHECK_STR(args->options[0].value, "=&");
	return mkw_set_error(-ENXIO, "own: seen");
}

static int idle_open(struct mkw_open_args *args)
{
	(void)args;
	return 0;
}

TEST(driver_register, "drivers of one's own are registered once, listed, and called")
{
	static const struct mkw_store_driver own = {.struct_size = sizeof(own),
						    .scheme = "own",
						    .options = "depth=N\thow deep\n",
						    .open = own_open};
	static const struct mkw_store_driver idle = {
		.struct_size = sizeof(idle), .scheme = "idle", .open = idle_open};
	struct mkw_store_driver bad = own;
	size_t count = 0;

	CHECK_EQ(mkw_store_register(NULL), -EINVAL);
	bad.struct_size--;
	CHECK_EQ(mkw_store_register(&bad), -EINVAL);
	bad = own;
	bad.open = NULL;
	CHECK_EQ(mkw_store_register(&bad), -EINVAL);
	bad = own;
	bad.scheme = "Own";
	CHECK_EQ(mkw_store_register(&bad), -EINVAL);
	bad.scheme = "a:b";
	CHECK_EQ(mkw_store_register(&bad), -EINVAL);
	bad.scheme = "";
	CHECK_EQ(mkw_store_register(&bad), -EINVAL);
	bad.scheme = "mem";
	CHECK_EQ(mkw_store_register(&bad), -EEXIST);
	CHECK_EQ(mkw_store_register(&own), 0);
	CHECK_EQ(mkw_store_register(&own), -EEXIST);
	while (mkw_store_driver(count))
		count++;
	CHECK_EQ(count, 5);
	CHECK_STR(mkw_store_driver(0)->scheme, "mem");
	CHECK(mkw_store_driver(4) == &own);
	CHECK_REFUSED("own:a b?depth=%3D%26", -ENXIO, "own: seen");
	CHECK_REFUSED("error:own:a b?depth=%3D%26", -ENXIO, "own: seen");
	CHECK_REFUSED("own:x?width=1", -EINVAL, "it knows depth");
	CHECK_EQ(mkw_store_register(&idle), 0);
	CHECK_REFUSED("idle:x", -EINVAL, "without operations");
	CHECK_REFUSED("idle:x?a=1", -EINVAL, "it knows none");
	static struct mkw_store_driver many[64];
	static char names[64][8];
	int error = 0;

	for (int i = 0; i < 64 && !error; i++) {
		many[i] = own;
		sprintf(names[i], "own-%d", i);
		many[i].scheme = names[i];
		error = mkw_store_register(&many[i]);
	}
	CHECK_EQ(error, -ENOSPC);
}

/* ---- Anything at all ---------------------------------------------------------------------- */

static uint64_t random_state;

static unsigned random_below(unsigned limit)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(random_state >> 33) % limit;
}

static void random_uri(char *uri, size_t size)
{
	static const char *const words[] = {"mem",
					    "file",
					    "error",
					    "delay",
					    ":",
					    ":",
					    "?",
					    "&",
					    "=",
					    "%",
					    "%41",
					    "%00",
					    "%3",
					    "quota",
					    "name",
					    "op",
					    "nth",
					    "count",
					    "us",
					    "range",
					    "prob",
					    "1/3",
					    "1M",
					    "4096",
					    "fault",
					    "page_mkwrite",
					    "errno",
					    "ENOSPC",
					    "code",
					    "RETRY",
					    "0",
					    "1-2",
					    "-",
					    "x",
					    "nosuch",
					    "/",
					    ".",
					    "direct",
					    "extent",
					    "seed",
					    "18446744073709551615",
					    "\xff",
					    " "};
	static const char *const starts[] = {"",
					     "mem:1M",
					     "mem:",
					     "file:",
					     "file:.",
					     "error:",
					     "delay?",
					     "error?op=fault:mem:64K",
					     "delay?us=0:mem:1M?"};
	unsigned pieces = random_below(16);

	strcpy(uri, starts[random_below(sizeof(starts) / sizeof(*starts))]);
	for (unsigned i = 0; i < pieces; i++) {
		const char *word = words[random_below(sizeof(words) / sizeof(*words))];

		if (strlen(uri) + strlen(word) + 2 > size)
			return;
		strcat(uri, word);
		if (!random_below(40)) {
			char one[2] = {(char)(1 + random_below(255)), '\0'};

			strcat(uri, one);
		}
	}
}

TEST(uri_anything, "no string crashes the parser, leaks, or fails without a sentence")
{
	char directory[] = "/tmp/mkwrite-uri-XXXXXX", uri[512];
	unsigned opened = 0;

	REQUIRE(mkdtemp(directory) != NULL);
	REQUIRE_EQ(chdir(directory), 0);
	for (unsigned i = 0; i < test_rounds(20000); i++) {
		random_state = i * 2654435761u + 17;
		random_uri(uri, sizeof(uri));
		double_message[0] = '\0';
		int error = try_uri(uri, random_below(2) ? MKW_RDWR : MKW_RDONLY);

		if (!CHECK(error <= 0 && (!error || *double_message)))
			test_note("round %u: %s: %d", i, uri, error);
		opened += !error;
	}
	CHECK(opened > 0);
	CHECK_EQ(rmdir(directory), 0);
}
