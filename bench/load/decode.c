#include "decode.h"
#include "loop.h"
#include <stdint.h>
#include <string.h>
#ifdef WITH_GZIP
#include <zlib.h>
#endif
#ifdef WITH_ZSTD
#include <zstd.h>
#endif
#ifdef WITH_BR
#include <brotli/decode.h>
#endif

enum { TEXT_BYTES = 1 << 16 };
static char text[TEXT_BYTES];

struct decoder {
    const struct coding *coding;
    void *state;
};

struct coding {
    const char *name;
    void *(*begin)(void);
    void (*decode)(struct decoder *, const char *data, size_t size, text_sink *sink, void *context);
};

#ifdef WITH_GZIP
static void *begin_gzip(void) {
    z_stream *z = room_for(1, sizeof *z);
    if (inflateInit2(z, 16 + MAX_WBITS) != Z_OK) die("out of memory");
    return z;
}

static void decode_gzip(struct decoder *decoder, const char *data, size_t size, text_sink *sink, void *context) {
    z_stream *z = decoder->state;
    z->next_in = (unsigned char *)data;
    z->avail_in = size;
    do {
        z->next_out = (unsigned char *)text;
        z->avail_out = sizeof text;
        int status = inflate(z, Z_SYNC_FLUSH);
        if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) die("a reply is not valid gzip");
        sink(context, text, sizeof text - z->avail_out);
    } while (z->avail_out == 0);
}
#endif

#ifdef WITH_ZSTD
static void *begin_zstd(void) {
    ZSTD_DStream *state = ZSTD_createDStream();
    if (!state) die("out of memory");
    return state;
}

static void decode_zstd(struct decoder *decoder, const char *data, size_t size, text_sink *sink, void *context) {
    ZSTD_inBuffer in = {data, size, 0};
    ZSTD_outBuffer out;
    do {
        out = (ZSTD_outBuffer){text, sizeof text, 0};
        if (ZSTD_isError(ZSTD_decompressStream(decoder->state, &out, &in))) die("a reply is not valid zstd");
        sink(context, text, out.pos);
    } while (in.pos < in.size || out.pos == out.size);
}
#endif

#ifdef WITH_BR
static void *begin_br(void) {
    BrotliDecoderState *state = BrotliDecoderCreateInstance(NULL, NULL, NULL);
    if (!state) die("out of memory");
    return state;
}

static void decode_br(struct decoder *decoder, const char *data, size_t size, text_sink *sink, void *context) {
    const uint8_t *next_in = (const uint8_t *)data;
    BrotliDecoderResult result;
    do {
        size_t room = sizeof text;
        uint8_t *next_out = (uint8_t *)text;
        result = BrotliDecoderDecompressStream(decoder->state, &size, &next_in, &room, &next_out, NULL);
        if (result == BROTLI_DECODER_RESULT_ERROR) die("a reply is not valid br");
        sink(context, text, sizeof text - room);
    } while (result == BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT);
}
#endif

static const struct coding codings[] = {
#ifdef WITH_GZIP
    {"gzip", begin_gzip, decode_gzip},
#endif
#ifdef WITH_ZSTD
    {"zstd", begin_zstd, decode_zstd},
#endif
#ifdef WITH_BR
    {"br", begin_br, decode_br},
#endif
    {0},
};

static const struct coding *find(const char *name) {
    for (const struct coding *coding = codings; coding->name; coding++)
        if (!strcmp(coding->name, name)) return coding;
    return NULL;
}

bool decodes(const char *coding) { return find(coding) != NULL; }

struct decoder *decoder_for(const char *coding) {
    struct decoder *decoder = room_for(1, sizeof *decoder);
    decoder->coding = find(coding);
    decoder->state = decoder->coding->begin();
    return decoder;
}

void decode(struct decoder *decoder, const char *data, size_t size, text_sink *sink, void *context) {
    decoder->coding->decode(decoder, data, size, sink, context);
}
