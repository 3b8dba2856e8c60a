/* A network for `network.py`: passes TCP on, each way later by a fixed time, any number of bytes under way.

   usage: network LISTEN_PORT SERVER_PORT MICROSECONDS   (all on 127.0.0.1)

   Linux. One thread, epoll, and one timerfd, whose moment is exact to some microseconds where the timeouts of epoll are
   whole milliseconds. What is read at one moment is written at that moment plus the delay, in order. A connection that
   ends takes its pair with it once all that was under way has arrived. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define CHUNK 65536
#define EVENTS 64
#define EARLY 20000 /* ns; to be woken and to write takes about as long */

struct piece {
    struct piece *next;
    int64_t due; /* nanoseconds, CLOCK_MONOTONIC */
    size_t from, to;
    char bytes[];
};

struct end { /* one socket; `pieces` are to be written to it */
    int socket;
    int blocked;  /* the socket takes no more for now */
    int finished; /* the other side has sent all it will send */
    struct end *other;
    struct piece *first, **last;
    struct end *next; /* in the list of all */
    int gone;
};

static struct end *ends;
static int poller, timer;
static int64_t delay, armed;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void watch(int how, int socket, uint32_t events, void *what) {
    struct epoll_event event = {.events = events, .data.ptr = what};
    if (epoll_ctl(poller, how, socket, &event) < 0) fail("epoll_ctl");
}

static struct end *add(int socket) {
    int on = 1;
    struct end *end = calloc(1, sizeof *end);
    if (!end) fail("calloc");
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    end->socket = socket;
    end->last = &end->first;
    end->next = ends;
    ends = end;
    return end;
}

static void give_up(struct end *end) {
    end->gone = end->other->gone = 1;
}

static void take(struct end *end) {
    static char buffer[CHUNK];
    struct end *to = end->other;
    ssize_t size = recv(end->socket, buffer, CHUNK, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0) {
        to->finished = 1;
        epoll_ctl(poller, EPOLL_CTL_DEL, end->socket, NULL);
        if (size < 0 || !to->first) give_up(end);
        return;
    }
    struct piece *piece = malloc(sizeof *piece + size);
    if (!piece) fail("malloc");
    piece->next = NULL;
    piece->due = now() + delay;
    piece->from = 0;
    piece->to = size;
    memcpy(piece->bytes, buffer, size);
    *to->last = piece;
    to->last = &piece->next;
}

static void give(struct end *end, int64_t until) {
    struct piece *piece;
    while ((piece = end->first) && piece->due <= until && !end->blocked && !end->gone) {
        ssize_t size = send(end->socket, piece->bytes + piece->from, piece->to - piece->from, MSG_NOSIGNAL);
        if (size < 0) {
            if (errno == EAGAIN && !end->other->finished) {
                end->blocked = 1;
                watch(EPOLL_CTL_MOD, end->socket, EPOLLIN | EPOLLOUT, end);
            } else if (errno != EINTR)
                give_up(end);
            return;
        }
        piece->from += size;
        if (piece->from < piece->to) continue;
        if (!(end->first = piece->next)) end->last = &end->first;
        free(piece);
    }
    if (end->finished && !end->first) give_up(end);
}

static void bury(void) {
    for (struct end **at = &ends, *end; (end = *at);) {
        if (!end->gone) {
            at = &end->next;
            continue;
        }
        *at = end->next;
        for (struct piece *piece; (piece = end->first); free(piece)) end->first = piece->next;
        close(end->socket);
        free(end);
    }
}

/* Writes what is due, and wakes us for the next piece. */
static void turn(void) {
    int64_t next = 0, at = now() + EARLY;
    int gone = 0;
    for (struct end *end = ends; end; end = end->next) {
        give(end, at);
        gone |= end->gone;
        if (end->first && !end->blocked && (!next || end->first->due < next)) next = end->first->due;
    }
    if (gone) bury();
    if (next && next != armed) {
        struct itimerspec when = {.it_value = {(next - EARLY) / 1000000000, (next - EARLY) % 1000000000}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
        armed = next;
    }
}

static struct sockaddr_in loopback(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void greet(int listener, struct sockaddr_in server) {
    int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0) return;
    int socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(socket_, (struct sockaddr *)&server, sizeof server) < 0) {
        close(socket_);
        close(client);
        return;
    }
    fcntl(socket_, F_SETFL, O_NONBLOCK);
    struct end *near = add(client), *far = add(socket_);
    near->other = far;
    far->other = near;
    watch(EPOLL_CTL_ADD, client, EPOLLIN, near);
    watch(EPOLL_CTL_ADD, socket_, EPOLLIN, far);
}

static void serve(int listener, struct sockaddr_in server) {
    struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct end *end = events[i].data.ptr;
            if (!end)
                greet(listener, server);
            else if (end == (struct end *)&timer)
                armed = 0;
            else {
                if (events[i].events & EPOLLOUT) {
                    end->blocked = 0;
                    watch(EPOLL_CTL_MOD, end->socket, EPOLLIN, end);
                }
                if (!end->gone && events[i].events & ~EPOLLOUT) take(end);
            }
        }
        turn();
    }
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "usage: network LISTEN_PORT SERVER_PORT MICROSECONDS\n");
        return 2;
    }
    struct sockaddr_in own = loopback(arguments[1]), server = loopback(arguments[2]);
    struct sched_param first = {.sched_priority = 1}; /* a network does not wait for a processor, where we may say so */
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    delay = (int64_t)atoi(arguments[3]) * 1000;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&own, sizeof own) < 0 || listen(listener, 128) < 0) fail("listen");
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    watch(EPOLL_CTL_ADD, timer, EPOLLIN | EPOLLET, &timer);
    if (sched_setscheduler(0, SCHED_FIFO, &first) < 0) setpriority(PRIO_PROCESS, 0, -20);
    serve(listener, server);
}
