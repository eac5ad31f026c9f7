/* SPDX-License-Identifier: MIT */
#include "place.h"
