/* SPDX-License-Identifier: MIT */
/*
 * replay.c - a fuzz target without libFuzzer: runs every file of the directories and files given,
 * once. 77: this host cannot.
 */
#include "fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INPUT_MAX_BYTES (1u << 20)

static unsigned inputs;

static void file_run(const char *path)
{
	static uint8_t buffer[INPUT_MAX_BYTES];
	FILE *file = fopen(path, "rbe");
	size_t size = file ? fread(buffer, 1, sizeof(buffer), file) : 0;

	EXPECT(file, "%s: %s", path, strerror(errno));
	fclose(file);
	/* Should it end here, this is the last line. */
	fprintf(stderr, "%s\n", path);
	/* Its own block, so that a sanitizer sees a read past its end. */
	uint8_t *data = malloc(size + !size);

	EXPECT(data, "no memory");
	memcpy(data, buffer, size);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	inputs++;
}

static int not_hidden(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static void path_run(const char *path)
{
	struct dirent **entries;
	struct stat st;

	if (stat(path, &st) || !S_ISDIR(st.st_mode)) {
		file_run(path);
		return;
	}
	int count = scandir(path, &entries, not_hidden, alphasort);

	EXPECT(count >= 0, "%s: %s", path, strerror(errno));
	for (int i = 0; i < count; i++) {
		char name[4096];

		snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
		path_run(name);
		free(entries[i]);
	}
	free(entries);
}

int main(int argc, char **argv)
{
	const char *unable = fuzz_unable();

	if (unable) {
		printf("not here: %s\n", unable);
		return 77;
	}
	for (int i = 1; i < argc; i++)
		path_run(argv[i]);
	printf("%u inputs\n", inputs);
	return inputs ? 0 : 1;
}
