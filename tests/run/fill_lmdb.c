/* SPDX-License-Identifier: MIT */
/*
 * fill_lmdb.c - what a program does that keeps its data in LMDB with a writable map: transactions
 * of records, each said on stdout when it is committed.
 *
 *   fill_lmdb FILE TRANSACTIONS [paced]
 *
 * paced: one for each byte of stdin, as long as there are some.
 */
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECORDS	  500 /* of a transaction */
#define MAP_BYTES (64u << 20)

static void check(int result)
{
	if (!result)
		return;
	fprintf(stderr, "fill_lmdb: %s\n", mdb_strerror(result));
	exit(1);
}

static void put(MDB_txn *txn, MDB_dbi dbi, unsigned number)
{
	char key[32], value[600];
	MDB_val k = {.mv_data = key}, v = {.mv_data = value};

	/* An odd factor: all over the tree, and each once. */
	k.mv_size = (size_t)snprintf(key, sizeof(key), "%08x", number * 2654435761u);
	v.mv_size = (size_t)snprintf(value, sizeof(value), "%u %0*u", number,
				     100 + (int)(number % 400), number);
	check(mdb_put(txn, dbi, &k, &v, 0));
}

int main(int argc, char **argv)
{
	unsigned transactions = argc >= 3 ? (unsigned)atoi(argv[2]) : 0;
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;

	if (!transactions)
		return 2;
	check(mdb_env_create(&env));
	check(mdb_env_set_mapsize(env, MAP_BYTES));
	check(mdb_env_open(env, argv[1], MDB_WRITEMAP | MDB_NOSUBDIR, 0600));
	for (unsigned i = 0; i < transactions; i++) {
		if (argc > 3)
			getchar();
		check(mdb_txn_begin(env, NULL, 0, &txn));
		check(mdb_dbi_open(txn, NULL, 0, &dbi));
		for (unsigned j = 0; j < RECORDS; j++)
			put(txn, dbi, i * RECORDS + j);
		check(mdb_txn_commit(txn));
		printf("committed %u\n", (i + 1) * RECORDS);
		fflush(stdout);
	}
	mdb_env_close(env);
	return 0;
}
