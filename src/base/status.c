/* SPDX-License-Identifier: MIT */
/* Names, texts and categories, all from the one table in <semel/status.h>. */
#include <semel/status.h>

const char *semel_status_name(enum semel_status status)
{
    switch (status) {
#define STATUS_NAME(name, number, text, category)                                                  \
    case SEMEL_##name:                                                                             \
        return #name;
        SEMEL_STATUS_TABLE(STATUS_NAME)
#undef STATUS_NAME
    }
    return "?";
}

const char *semel_status_text(enum semel_status status)
{
    switch (status) {
#define STATUS_TEXT(name, number, text, category)                                                  \
    case SEMEL_##name:                                                                             \
        return text;
        SEMEL_STATUS_TABLE(STATUS_TEXT)
#undef STATUS_TEXT
    }
    return "?";
}

enum semel_category semel_status_category(enum semel_status status)
{
    switch (status) {
#define STATUS_CATEGORY(name, number, text, category)                                              \
    case SEMEL_##name:                                                                             \
        return SEMEL_CATEGORY_##category;
        SEMEL_STATUS_TABLE(STATUS_CATEGORY)
#undef STATUS_CATEGORY
    }
    return SEMEL_CATEGORY_USAGE;
}

const char *semel_outcome_text(enum semel_outcome outcome)
{
    switch (outcome) {
    case SEMEL_VALUE:
        return "value";
    case SEMEL_FAILURE:
        return "failure";
    case SEMEL_NOT_EXECUTED:
        return "not executed";
    case SEMEL_UNKNOWN:
        return "unknown";
    }
    return "?";
}
