// The command line. Modes are described in main.c.

#pragma once

enum { MAX_PIDS = 64 };

enum mode { PACED, SATURATED, SERIAL, FLOOD };
enum flood { OF_EVENTS, OF_TINY_EVENTS, OF_HUGE_EVENTS, OF_BYTES, UNREAD };

extern struct options {
    enum mode mode;
    enum flood flood;
    int listen_fd;    // bound and listening: the mock upstream's
    int port;         // of the proxy under test, on loopback
    int streams;      // in serial mode: exchanges
    int base_streams; // so many are open when memory is looked at first; 0: memory is not looked at
    double rate;      // events a second and stream
    double warm_s, seconds;
    const char *coding; // that the client asks for and the reply has to have; NULL: identity
    char headers[1024]; // extra request header lines
    int pids[MAX_PIDS]; // whose CPU time and memory are measured
    int pid_count;
} options;

void read_options(int count, char **values);
