// Content codings of a reply, as far as their libraries were there when this was built.

#pragma once
#include <stdbool.h>
#include <stddef.h>

struct decoder;
typedef void text_sink(void *context, const char *text, size_t size);

bool decodes(const char *coding);
struct decoder *decoder_for(const char *coding); // which `decodes`
// All that can be had of the text so far goes to `sink`; ends the process where `data` is not valid.
void decode(struct decoder *, const char *data, size_t size, text_sink *sink, void *context);
