#include "options.h"
#include "decode.h"
#include "loop.h"
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

struct options options = {.listen_fd = -1, .streams = 100, .rate = 50, .warm_s = 0.5, .seconds = 2};

static enum mode read_mode(const char *word) {
    static const char *const words[] = {
        [PACED] = "paced", [SATURATED] = "saturated", [SERIAL] = "serial", [FLOOD] = "flood"};
    for (int mode = 0; mode < 4; mode++)
        if (!strcmp(word, words[mode])) return mode;
    die("--mode is paced, saturated, serial or flood");
}

static enum flood read_flood(const char *word) {
    static const char *const words[] = {[OF_EVENTS] = "events",
                                        [OF_TINY_EVENTS] = "tiny",
                                        [OF_HUGE_EVENTS] = "huge",
                                        [OF_BYTES] = "bytes",
                                        [UNREAD] = "unread"};
    for (int flood = 0; flood < 5; flood++)
        if (!strcmp(word, words[flood])) return flood;
    die("--flood is events, tiny, huge, bytes or unread");
}

static void add_header(const char *line) {
    if (strlen(options.headers) + strlen(line) + 3 > sizeof options.headers) die("too many headers");
    strcat(strcat(options.headers, line), "\r\n");
}

void read_options(int count, char **values) {
    static const struct option names[] = {
        {"mode", required_argument, 0, 'm'},         {"listen-fd", required_argument, 0, 'l'},
        {"port", required_argument, 0, 'p'},         {"streams", required_argument, 0, 'n'},
        {"base-streams", required_argument, 0, 'b'}, {"rate", required_argument, 0, 'r'},
        {"warm-s", required_argument, 0, 'w'},       {"seconds", required_argument, 0, 's'},
        {"coding", required_argument, 0, 'c'},       {"header", required_argument, 0, 'h'},
        {"pid", required_argument, 0, 'i'},          {"flood", required_argument, 0, 'f'},
        {0},
    };
    for (int name; (name = getopt_long(count, values, "", names, NULL)) != -1;) {
        switch (name) {
        case 'm': options.mode = read_mode(optarg); break;
        case 'f': options.flood = read_flood(optarg); break;
        case 'l': options.listen_fd = atoi(optarg); break;
        case 'p': options.port = atoi(optarg); break;
        case 'n': options.streams = atoi(optarg); break;
        case 'b': options.base_streams = atoi(optarg); break;
        case 'r': options.rate = atof(optarg); break;
        case 'w': options.warm_s = atof(optarg); break;
        case 's': options.seconds = atof(optarg); break;
        case 'h': add_header(optarg); break;
        case 'c':
            if (!decodes(optarg)) die("built without what decodes %s", optarg);
            options.coding = optarg;
            break;
        case 'i':
            if (options.pid_count == MAX_PIDS) die("more than %d processes", MAX_PIDS);
            options.pids[options.pid_count++] = atoi(optarg);
            break;
        default: exit(1);
        }
    }
    if (options.listen_fd < 0 || options.port <= 0 || options.streams <= 0 || options.rate <= 0)
        die("--listen-fd, --port, --streams and --rate have to be positive numbers");
    if (options.base_streams >= options.streams) die("--base-streams has to be smaller than --streams");
    if (options.mode == FLOOD && options.streams < 2) die("a flood needs a stream beside the one that is timed");
}
