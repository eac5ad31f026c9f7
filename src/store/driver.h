/* SPDX-License-Identifier: MIT */
/* driver.h - the drivers that the library brings along. */
#ifndef STORE_DRIVER_H
#define STORE_DRIVER_H

#include <mkwrite/store.h>

extern const struct mkw_store_driver mem_driver, file_driver, error_driver, delay_driver;

#endif
