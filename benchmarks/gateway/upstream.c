/* A provider for benchmarks: one thread, epoll, loopback only.
 *
 *     cc -O2 -o upstream upstream.c && ./upstream PORT
 *
 * POST answers a chat completion of about 1 KB, or, with "stream":true, 66 events (64 pieces of
 * text, the usage, [DONE]), each in an HTTP chunk and, with a gap, in a write of its own.
 * A JSON string that begins with "bench" anywhere in the body steers the answer, wherever a gateway
 * has put it:
 *
 *     "bench-d50-c5-k10"   dN    wait N ms first
 *                          cN    N ms between events; 0: the whole stream in one write
 *                          kN    reset the connection after N events, or in the middle of the body
 *                          xN    answer with status N
 *
 * GET /stats tells what was served.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FDS = 65536, NUM_TEXTS = 64, NUM_EVENTS = NUM_TEXTS + 2, READ_BYTES = 65536 };

typedef struct {
    int delay_ms, gap_ms, cut_after, status;
    bool stream;
} Order;

typedef struct {
    bool is_open, is_busy, closes;
    uint32_t generation; /* tells a timer that its connection is another by now */
    Order order;
    int next_event;
    char *in; /* what has come and is not yet answered */
    size_t in_len, in_room;
    char *out; /* what the socket did not take */
    size_t out_len, out_room;
} Connection;

typedef struct {
    int64_t at_ns;
    int fd;
    uint32_t generation;
} Timer;

typedef struct {
    const char *bytes;
    size_t len;
} Text;

static Connection connections[MAX_FDS];
static Timer *timers;
static size_t num_timers, room_for_timers;
static int poller;
static Text completion, whole_stream, stream_head, events[NUM_EVENTS];
static struct {
    unsigned long long requests, streams, completed, aborted, events, connections, open;
} stats;

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* Timers: a binary heap, the earliest first. */

static void after_ms(int fd, int ms) {
    if (num_timers == room_for_timers) {
        room_for_timers = room_for_timers ? room_for_timers * 2 : 1024;
        timers = realloc(timers, room_for_timers * sizeof(Timer));
    }
    Timer timer = {now_ns() + ms * 1000000LL, fd, connections[fd].generation};
    size_t place = num_timers++;
    while (place && timers[(place - 1) / 2].at_ns > timer.at_ns) {
        timers[place] = timers[(place - 1) / 2];
        place = (place - 1) / 2;
    }
    timers[place] = timer;
}

static Timer first_timer(void) {
    Timer first = timers[0], last = timers[--num_timers];
    size_t place = 0;
    for (;;) {
        size_t child = 2 * place + 1;
        if (child >= num_timers) break;
        if (child + 1 < num_timers && timers[child + 1].at_ns < timers[child].at_ns) child++;
        if (timers[child].at_ns >= last.at_ns) break;
        timers[place] = timers[child];
        place = child;
    }
    timers[place] = last;
    return first;
}

/* Connections. */

static void hang_up(int fd) {
    Connection *c = &connections[fd];
    if (c->is_busy) stats.aborted++;
    c->is_open = c->is_busy = false;
    c->generation++;
    c->in_len = c->out_len = 0;
    stats.open--;
    close(fd);
}

static void watch(int fd, bool for_room) {
    struct epoll_event event = {.events = EPOLLIN | (for_room ? EPOLLOUT : 0), .data.fd = fd};
    epoll_ctl(poller, EPOLL_CTL_MOD, fd, &event);
}

/* Returns false when the connection is gone. What the socket does not take waits. */
static bool write_all(int fd, const char *bytes, size_t len) {
    Connection *c = &connections[fd];
    if (!c->out_len) {
        while (len) {
            ssize_t sent = send(fd, bytes, len, MSG_NOSIGNAL);
            if (sent < 0 && errno == EAGAIN) break;
            if (sent < 0) {
                hang_up(fd);
                return false;
            }
            bytes += sent;
            len -= sent;
        }
        if (!len) return true;
        watch(fd, true);
    }
    if (c->out_room < c->out_len + len) {
        c->out_room = (c->out_len + len) * 2;
        c->out = realloc(c->out, c->out_room);
    }
    memcpy(c->out + c->out_len, bytes, len);
    c->out_len += len;
    return true;
}

static void write_rest(int fd) {
    Connection *c = &connections[fd];
    while (c->out_len) {
        ssize_t sent = send(fd, c->out, c->out_len, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) return;
        if (sent < 0) {
            hang_up(fd);
            return;
        }
        memmove(c->out, c->out + sent, c->out_len - sent);
        c->out_len -= sent;
    }
    watch(fd, false);
}

static bool write_text(int fd, Text text) { return write_all(fd, text.bytes, text.len); }

static void finish(int fd) {
    connections[fd].is_busy = false;
    stats.completed++;
    if (connections[fd].closes) hang_up(fd);
}

static void reset_connection(int fd) {
    struct linger at_once = {1, 0};
    connections[fd].is_busy = false; /* that is ours, not the client's doing */
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    hang_up(fd);
}

/* Answers. */

static void answer_error(int fd, int status) {
    char body[256], whole[512];
    int body_len = snprintf(body, sizeof body,
        "{\"error\":{\"message\":\"The provider says %d.\",\"type\":\"bench_error\",\"param\":null,"
        "\"code\":\"bench\"}}", status);
    int len = snprintf(whole, sizeof whole,
        "HTTP/1.1 %d Ordered\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
        status, status == 429 ? "Retry-After: 2\r\n" : "", body_len, body);
    if (write_all(fd, whole, len)) finish(fd);
}

static void answer_whole(int fd) {
    if (connections[fd].order.cut_after) {
        if (write_all(fd, completion.bytes, completion.len - 200)) reset_connection(fd);
    } else if (write_text(fd, completion)) {
        finish(fd);
    }
}

static void answer_next_event(int fd) {
    Connection *c = &connections[fd];
    if (c->next_event == 0 && !write_text(fd, stream_head)) return;
    if (c->order.cut_after && c->next_event == c->order.cut_after) {
        reset_connection(fd);
        return;
    }
    int number = c->next_event++;
    stats.events++;
    if (!write_text(fd, events[number])) return;
    if (number == NUM_EVENTS - 1) {
        finish(fd);
        return;
    }
    /* Streams that began together do not stay in step: real ones would not be. */
    after_ms(fd, number || c->order.gap_ms < 50 ? c->order.gap_ms : rand() % c->order.gap_ms);
}

static void answer(int fd) {
    Connection *c = &connections[fd];
    if (c->order.status) {
        answer_error(fd, c->order.status);
    } else if (!c->order.stream) {
        answer_whole(fd);
    } else if (c->order.gap_ms || c->order.cut_after) {
        answer_next_event(fd);
    } else {
        stats.events += NUM_EVENTS;
        if (write_text(fd, whole_stream)) finish(fd);
    }
}

static void answer_stats(int fd) {
    char body[384], whole[512];
    int body_len = snprintf(body, sizeof body,
        "{\"requests\":%llu,\"streams\":%llu,\"completed\":%llu,\"aborted\":%llu,\"events\":%llu,"
        "\"connections\":%llu,\"open\":%llu}", stats.requests, stats.streams, stats.completed,
        stats.aborted, stats.events, stats.connections, stats.open);
    int len = snprintf(whole, sizeof whole,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
        body_len, body);
    write_all(fd, whole, len);
}

/* Requests. */

static int number_after(const char *from, const char *to, const char *letter) {
    const char *found = memmem(from, to - from, letter, 2);
    return found ? atoi(found + 2) : 0;
}

static Order read_order(const char *body, const char *end) {
    Order order = {0};
    const char *stream = memmem(body, end - body, "\"stream\":", 9);
    if (stream) {
        stream += 9;
        while (*stream == ' ') stream++;
        order.stream = *stream == 't';
    }
    const char *from = memmem(body, end - body, "\"bench", 6);
    const char *to = from ? memchr(from + 1, '"', end - from - 1) : NULL;
    if (to) {
        order.delay_ms = number_after(from, to, "-d");
        order.gap_ms = number_after(from, to, "-c");
        order.cut_after = number_after(from, to, "-k");
        order.status = number_after(from, to, "-x");
    }
    return order;
}

/* Returns the length of the first request, 0 when it has not come whole; the input ends in a NUL. */
static size_t request_length(Connection *c, size_t *head_len) {
    char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
    if (!end) return 0;
    *head_len = end + 4 - c->in;
    end[2] = 0; /* so that only the head is searched */
    char *length = strcasestr(c->in, "\ncontent-length:");
    char *coding = strcasestr(c->in, "\ntransfer-encoding:");
    c->closes = strcasestr(c->in, "\nconnection: close") != NULL;
    end[2] = '\r';
    size_t total = *head_len;
    if (length) {
        total += strtoul(length + 16, NULL, 10);
    } else if (coding) {
        char *last = memmem(end + 2, c->in_len - (end + 2 - c->in), "\r\n0\r\n\r\n", 7);
        if (!last) return 0;
        total = last + 7 - c->in;
    }
    return total <= c->in_len ? total : 0;
}

static void take_requests(int fd) {
    Connection *c = &connections[fd];
    while (c->is_open && !c->is_busy && c->in_len) {
        size_t head_len, total = request_length(c, &head_len);
        if (!total) return;
        bool is_post = c->in[0] == 'P';
        Order order = read_order(c->in + head_len, c->in + total);
        memmove(c->in, c->in + total, c->in_len - total + 1);
        c->in_len -= total;
        if (!is_post) {
            answer_stats(fd);
            continue;
        }
        c->order = order;
        c->next_event = 0;
        c->is_busy = true;
        stats.requests++;
        stats.streams += order.stream;
        if (order.delay_ms)
            after_ms(fd, order.delay_ms);
        else
            answer(fd);
    }
}

static void read_input(int fd) {
    Connection *c = &connections[fd];
    for (;;) {
        if (c->in_room < c->in_len + READ_BYTES + 1) {
            c->in_room = (c->in_len + READ_BYTES + 1) * 2;
            c->in = realloc(c->in, c->in_room);
        }
        ssize_t got = recv(fd, c->in + c->in_len, READ_BYTES, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN)) {
            hang_up(fd);
            return;
        }
        if (got > 0) c->in_len += got;
        c->in[c->in_len] = 0;
        if (got < READ_BYTES) break;
    }
    take_requests(fd);
}

static void accept_all(int listener) {
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_FDS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        connections[fd].is_open = true;
        stats.connections++;
        stats.open++;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

static void run_timers(void) {
    int64_t now = now_ns();
    while (num_timers && timers[0].at_ns <= now) {
        Timer timer = first_timer();
        Connection *c = &connections[timer.fd];
        if (!c->is_open || c->generation != timer.generation || !c->is_busy) continue;
        if (c->order.stream && c->next_event)
            answer_next_event(timer.fd);
        else
            answer(timer.fd);
        if (c->is_open && !c->is_busy) take_requests(timer.fd);
    }
}

/* What is sent, made once. */

static Text kept(const char *bytes, size_t len) { return (Text){memcpy(malloc(len), bytes, len), len}; }

static void make_completion(void) {
    char text[561], body[1600], whole[2048];
    for (int i = 0; i < 560; i++) text[i] = "water, wind and a long road to the hills; "[i % 42];
    text[560] = 0;
    int body_len = snprintf(body, sizeof body,
        "{\"id\":\"chatcmpl-bench00000000000000000000\",\"object\":\"chat.completion\","
        "\"created\":1790000000,\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"message\":{"
        "\"role\":\"assistant\",\"content\":\"%s\",\"refusal\":null,\"annotations\":[]},"
        "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":120,"
        "\"completion_tokens\":128,\"total_tokens\":248,\"prompt_tokens_details\":{"
        "\"cached_tokens\":0,\"audio_tokens\":0},\"completion_tokens_details\":{"
        "\"reasoning_tokens\":0,\"audio_tokens\":0}},\"service_tier\":\"default\","
        "\"system_fingerprint\":\"fp_bench\"}", text);
    int len = snprintf(whole, sizeof whole,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: req_bench\r\n"
        "Content-Length: %d\r\n\r\n%s", body_len, body);
    completion = kept(whole, len);
}

#define EVENT "data: {\"id\":\"chatcmpl-bench0\",\"object\":\"chat.completion.chunk\"," \
    "\"created\":1790000000,\"model\":\"gpt-4o-mini\",\"choices\":["

static void make_events(void) {
    static char all[NUM_EVENTS * 640];
    const char *head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        "Transfer-Encoding: chunked\r\nx-request-id: req_bench\r\n\r\n";
    stream_head = kept(head, strlen(head));
    size_t len = strlen(head);
    memcpy(all, head, len);
    for (int i = 0; i < NUM_EVENTS; i++) {
        char data[512], chunk[600];
        int data_len;
        if (i < NUM_TEXTS)
            data_len = snprintf(data, sizeof data,
                EVENT "{\"index\":0,\"delta\":{%s\"content\":\" tok%02d\"},\"logprobs\":null,"
                "\"finish_reason\":%s}],\"usage\":null}\n\n", i ? "" : "\"role\":\"assistant\",", i,
                i == NUM_TEXTS - 1 ? "\"stop\"" : "null");
        else if (i == NUM_TEXTS)
            data_len = snprintf(data, sizeof data,
                EVENT "],\"usage\":{\"prompt_tokens\":120,\"completion_tokens\":64,"
                "\"total_tokens\":184}}\n\n");
        else
            data_len = snprintf(data, sizeof data, "data: [DONE]\n\n");
        int chunk_len = snprintf(chunk, sizeof chunk, "%x\r\n%s\r\n%s", data_len, data,
            i == NUM_EVENTS - 1 ? "0\r\n\r\n" : "");
        events[i] = kept(chunk, chunk_len);
        memcpy(all + len, chunk, chunk_len);
        len += chunk_len;
    }
    whole_stream = kept(all, len);
}

static int listen_on(int port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) {
        perror("upstream");
        exit(1);
    }
    return listener;
}

int main(int count, char **arguments) {
    if (count != 2) {
        fprintf(stderr, "usage: upstream PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    make_completion();
    make_events();
    int listener = listen_on(atoi(arguments[1]));
    poller = epoll_create1(0);
    struct epoll_event ready[512], first = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &first);
    for (;;) {
        int wait_ms = -1;
        if (num_timers) {
            int64_t left_ns = timers[0].at_ns - now_ns();
            wait_ms = left_ns <= 0 ? 0 : (int)((left_ns + 999999) / 1000000);
        }
        int count_ready = epoll_wait(poller, ready, 512, wait_ms);
        for (int i = 0; i < count_ready; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener)
                accept_all(fd);
            else if (connections[fd].is_open) {
                if (ready[i].events & EPOLLOUT) write_rest(fd);
                if (connections[fd].is_open && ready[i].events & ~EPOLLOUT) read_input(fd);
            }
        }
        run_timers();
    }
}
