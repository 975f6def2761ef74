/*
 * load: the load generator of the benchmarks.
 *
 *   load create HOST PORT PATH streams                      PUT each stream once
 *   load append HOST PORT PATH connections seconds bytes    POST, closed loop
 *   load writers HOST PORT PATH connections seconds smallest largest
 *                                                           POST as idempotent producers, closed loop
 *   load read   HOST PORT PATH connections seconds          GET, closed loop
 *   load follow HOST PORT PATH connections seconds appends bytes
 *                                                           GET from differing offsets, closed loop
 *   load fill   HOST PORT PATH connections bytes            POST to each stream once
 *   load check  HOST PORT PATH connections bytes            GET each stream once, whole: of bodies of this size
 *   load replay HOST PORT PATH connections seconds bytes    GET whole streams of so many bytes, closed loop
 *   load write  HOST PORT PATH events bytes                 numbered events from one connection, closed loop
 *   load tails  HOST PORT PATH tails events rate bytes      SSE latency at a steady rate
 *   load fanout HOST PORT PATH tails seconds bytes          SSE throughput, one writer as fast as it goes
 *   load idle   HOST PORT PATH tails                        holds SSE tails until stdin closes
 *   load stall  HOST PORT PATH tails                        holds SSE tails unread until stdin says "EVENTS BYTES"
 *
 * Options: --type CONTENT-TYPE (application/json); --streams N (a "{n}" in PATH stands for 0 to N-1, taken in turn,
 * request by request); --drain SECONDS (30: how long to wait for an answer, and for what is still on its way);
 * --connections N (16: of create); --ttl SECONDS (the lifetime of what create makes); --tally FILE (a line for each
 * stream: of fill and append, how many were acknowledged, and how many not; of check, how many were found, and 1 when
 * something else was); --phases NAME (of append: the latency of each phase is told apart; the first has this name, and
 * each line on stdin names another one that begins; the end of stdin ends the run); --writer-port PORT (of tails: where
 * the events are appended, if that is another server than the one that the tails read from); --token TOKEN (sent as
 * Authorization: Bearer with each request).
 *
 * A producer of "writers" has a connection and a stream of its own: its Producer-Seq rises with each append, and the
 * length of its body differs. "follow" appends to each stream first, and then reads from the offsets that it was told;
 * each eighth request has the If-None-Match of an earlier answer. --headers client leaves out what only browsers send.
 *
 * One thread, epoll, no memory taken and nothing printed while it measures. Requests are rendered once, before; those
 * of "writers" are filled in. Each connection of a closed loop has one request under way. A result is one line of JSON on stdout; latencies are in
 * microseconds; "busy" is the share of one core that the generator itself used: near 1, it measures itself.
 *
 * An event is {"n":NUMBER,"t":NANOSECONDS,"p":"xxx"}: its number from 0, the monotonic time just before it was sent,
 * and a filling that makes it exactly as long as asked. A tail checks that each number comes once, in order and
 * whole. Tails read as a client should: one that the server ends goes on from the last offset that it was told
 * ("reconnects").
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND UINT64_C(1000000000)

enum {
    OPENING = 16,           /* connections that may wait for their first answer: servers' backlogs are short */
    BATCH = 512,            /* epoll events taken at once */
    WINDOW = 1024,          /* how far back a late event is told from a doubled one */
    SMALLEST_EVENT = 64,
    STALLED_RECEIVE_BUFFER = 16 << 10,
};

/* Tags of epoll registrations that are no index of a client or a tail. */
#define WRITER UINT64_MAX
#define TIMER (UINT64_MAX - 1)
#define STDIN (UINT64_MAX - 2)

static const char *content_type = "application/json";
static const char *accept_encoding = "gzip, deflate, br, zstd";
static size_t stream_count = 1;
static size_t create_connections = OPENING;
static unsigned time_to_live; /* in seconds; 0: for ever */
static bool from_browser = true; /* requests have a browser's headers */
static const char *authorization = ""; /* the line with the credentials of requests */
static double drain_seconds = 30;
static uint64_t last_answer; /* when the last one came, or when the waiting began */

static const char *server_host, *server_port;
static const char *writer_port; /* of the writer of events; NULL: as the others */
static struct sockaddr_storage server_address;
static socklen_t server_address_length;

static int poller;
static int receive_buffer; /* of each connection; 0: as the system sets it */
static char received[256 * 1024];

/* --------------------------------------------------------------------------------------------- time and failure */

static _Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* Gives up on a server that answers nothing. */
static void keep_patience(uint64_t now)
{
    if ((double)(now - last_answer) > drain_seconds * (double)SECOND)
        fail("no answer for %g seconds", drain_seconds);
}

/* The processor time that this process has used. */
static uint64_t processor_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        fail("out of memory");
    return memory;
}

struct stopwatch {
    uint64_t started, processor;
};

static struct stopwatch stopwatch_start(void)
{
    return (struct stopwatch){now_ns(), processor_ns()};
}

static double stopwatch_seconds(const struct stopwatch *stopwatch)
{
    return (double)(now_ns() - stopwatch->started) / (double)SECOND;
}

/* The share of one core that this process used meanwhile. */
static double stopwatch_busy(const struct stopwatch *stopwatch)
{
    return (double)(processor_ns() - stopwatch->processor) / (double)SECOND / stopwatch_seconds(stopwatch);
}

/* ---------------------------------------------------------------------------------------------------- histogram */

/* Buckets of 1/128 of their value, so quantiles are exact to under one per cent; the largest value is kept exactly. */
enum { FINENESS = 7, BUCKETS = (64 - FINENESS + 1) << FINENESS };

struct histogram {
    uint64_t count, largest;
    uint64_t buckets[BUCKETS];
};

static void histogram_add(struct histogram *histogram, uint64_t value)
{
    unsigned index;
    if (value < (1u << FINENESS)) {
        index = (unsigned)value;
    } else {
        unsigned power = 63u - (unsigned)__builtin_clzll(value);
        unsigned within = (unsigned)(value >> (power - FINENESS)) & ((1u << FINENESS) - 1);
        index = ((power - FINENESS + 1) << FINENESS) + within;
    }
    histogram->buckets[index]++;
    histogram->count++;
    if (value > histogram->largest)
        histogram->largest = value;
}

static double histogram_quantile_us(const struct histogram *histogram, double quantile)
{
    uint64_t rank = (uint64_t)(quantile * (double)histogram->count), before = 0;
    for (unsigned index = 0; index < BUCKETS; index++) {
        before += histogram->buckets[index];
        if (before > rank) {
            if (index < (1u << FINENESS))
                return index / 1e3;
            unsigned shift = (index >> FINENESS) - 1;
            uint64_t lowest = (UINT64_C(1) << FINENESS) + (index & ((1u << FINENESS) - 1));
            return (double)(lowest << shift) / 1e3;
        }
    }
    return (double)histogram->largest / 1e3;
}

static void print_latency(const struct histogram *histogram)
{
    printf("\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f", histogram_quantile_us(histogram, 0.50),
           histogram_quantile_us(histogram, 0.99), (double)histogram->largest / 1e3);
}

/* ----------------------------------------------------------------------------------------------------- requests */

struct request {
    char *bytes;
    size_t length;
};

/* Renders "PATH" with "{n}" replaced by the number of a stream. */
static void render_path(char *path, size_t size, const char *pattern, size_t number)
{
    const char *mark = strstr(pattern, "{n}");
    int length = mark ? snprintf(path, size, "%.*s%zu%s", (int)(mark - pattern), pattern, number, mark + 3)
                      : snprintf(path, size, "%s", pattern);
    if (length < 0 || (size_t)length >= size)
        fail("the path is too long");
}

/*
 * Renders a head with the headers that a browser's fetch sends to another origin, or with those of Node's fetch.
 *
 * length: the line of the body's length; more: further lines.
 */
static size_t render_head(char *head, size_t room, const char *method, const char *path, const char *accept,
                          const char *length, const char *more)
{
    int written;
    if (from_browser)
        written = snprintf(
        head, room,
        "%s %s HTTP/1.1\r\n"
        "Host: %s:%s\r\n"
        "Connection: keep-alive\r\n"
        "%s"
        "%s"
        "sec-ch-ua-platform: \"Linux\"\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/140.0.0.0 Safari/537.36\r\n"
        "sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\", \"Google Chrome\";v=\"140\"\r\n"
        "%s"
        "sec-ch-ua-mobile: ?0\r\n"
        "Accept: %s\r\n"
        "Origin: https://app.example.com\r\n"
        "Sec-Fetch-Site: cross-site\r\n"
        "Sec-Fetch-Mode: cors\r\n"
        "Sec-Fetch-Dest: empty\r\n"
        "Referer: https://app.example.com/\r\n"
        "Accept-Encoding: %s\r\n"
        "Accept-Language: en-GB,en;q=0.9\r\n"
        "\r\n",
        method, path, server_host, server_port, authorization, length, more, accept, accept_encoding);
    else
        written = snprintf(head, room,
                           "%s %s HTTP/1.1\r\n"
                           "host: %s:%s\r\n"
                           "connection: keep-alive\r\n"
                           "%s"
                           "%s"
                           "accept: %s\r\n"
                           "accept-language: *\r\n"
                           "sec-fetch-mode: cors\r\n"
                           "user-agent: node\r\n"
                           "accept-encoding: %s\r\n"
                           "%s"
                           "\r\n",
                           method, path, server_host, server_port, authorization, more, accept, accept_encoding,
                           length);
    if (written < 0 || (size_t)written >= room)
        fail("the request head is too long");
    return (size_t)written;
}

/*
 * Renders a request. The body, when there is one, is left for the caller to write behind the head: the answer's length
 * includes it. condition: an ETag to send as If-None-Match; or null.
 */
static struct request render_request(const char *method, const char *path, const char *accept, bool typed,
                                     size_t body_length, const char *condition)
{
    char more[500] = "", size[64] = "", head[6144];
    size_t used = 0;
    if (time_to_live && strcmp(method, "PUT") == 0)
        used += (size_t)snprintf(more, sizeof more, "Stream-TTL: %u\r\n", time_to_live);
    if (typed)
        used += (size_t)snprintf(more + used, sizeof more - used, "Content-Type: %.300s\r\n", content_type);
    if (condition)
        snprintf(more + used, sizeof more - used, "If-None-Match: %.100s\r\n", condition);
    if (strcmp(method, "GET") != 0)
        snprintf(size, sizeof size, "Content-Length: %zu\r\n", body_length);
    size_t length = render_head(head, sizeof head, method, path, accept, size, more);
    struct request request = {allocate(1, length + body_length), length + body_length};
    memcpy(request.bytes, head, length);
    return request;
}

/* Writes a body of exactly so many bytes that is JSON, and text, and bytes. */
static void fill_body(char *body, size_t length)
{
    static const char open[] = "{\"p\":\"", close[] = "\"}";
    size_t shortest = sizeof open - 1 + sizeof close - 1;
    if (length < shortest)
        fail("a body has at least %zu bytes", shortest);
    memset(body, 'x', length);
    memcpy(body, open, sizeof open - 1);
    memcpy(body + length - (sizeof close - 1), close, sizeof close - 1);
}

/* ---------------------------------------------------------------------------------------------------- responses */

enum response_state { HEAD, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILERS, COMPLETE };

/* What is known of a response so far. Zeroed, it awaits one. */
struct response {
    enum response_state state;
    int status;
    bool sized, chunked, encoded, closes;
    bool up_to_date;      /* the body ends at the stream's tail */
    char next_offset[80]; /* where to read on */
    char etag[120];
    uint64_t left;        /* bytes of a sized body, or of this chunk, still to come */
    size_t line_length;   /* of a line whose end has not come yet */
    char line[200];       /* the names and values of interest are shorter; what is longer is cut */
};

typedef void body_sink(void *owner, const char *bytes, size_t length);

/* Takes one line, without its end, from the bytes; false when its end has not come. */
static bool take_line(struct response *response, const char **at, const char *end, const char **line, size_t *length)
{
    const char *newline = memchr(*at, '\n', (size_t)(end - *at));
    const char *stop = newline ? newline : end;
    size_t piece = (size_t)(stop - *at);
    if (newline && response->line_length == 0) {
        *line = *at;
        *length = piece;
    } else {
        size_t room = sizeof response->line - response->line_length;
        size_t kept = piece < room ? piece : room;
        memcpy(response->line + response->line_length, *at, kept);
        response->line_length += kept;
        *line = response->line;
        *length = response->line_length;
    }
    *at = newline ? newline + 1 : end;
    if (!newline)
        return false;
    response->line_length = 0;
    if (*length && (*line)[*length - 1] == '\r')
        --*length;
    return true;
}

/* The value of a header line when its name is this (given in lower case, with the colon); else a null pointer. */
static const char *header_value(const char *line, size_t length, const char *name, size_t *value_length)
{
    size_t name_length = strlen(name);
    if (length < name_length || strncasecmp(line, name, name_length) != 0)
        return NULL;
    const char *value = line + name_length, *end = line + length;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    *value_length = (size_t)(end - value);
    return value;
}

static uint64_t parse_number(const char *text, size_t length, unsigned base)
{
    uint64_t number = 0;
    for (size_t index = 0; index < length; index++) {
        char character = text[index];
        unsigned digit;
        if (character >= '0' && character <= '9')
            digit = (unsigned)(character - '0');
        else if (base == 16 && (character | 32) >= 'a' && (character | 32) <= 'f')
            digit = (unsigned)((character | 32) - 'a') + 10;
        else
            break;
        number = number * base + digit;
    }
    return number;
}

static bool contains(const char *text, size_t length, const char *word)
{
    size_t word_length = strlen(word);
    for (size_t start = 0; start + word_length <= length; start++)
        if (strncasecmp(text + start, word, word_length) == 0)
            return true;
    return false;
}

static void take_header(struct response *response, const char *line, size_t length)
{
    const char *value;
    size_t value_length;
    if (response->status == 0) {
        if (length < 12 || memcmp(line, "HTTP/1.", 7) != 0)
            fail("this is no HTTP/1 response: %.*s", (int)(length < 80 ? length : 80), line);
        response->status = (int)parse_number(line + 9, 3, 10);
    } else if ((line[0] | 32) != 'c' && (line[0] | 32) != 't' && (line[0] | 32) != 's'
               && (line[0] | 32) != 'e') {
        return;
    } else if ((value = header_value(line, length, "content-length:", &value_length))) {
        response->sized = true;
        response->left = parse_number(value, value_length, 10);
    } else if ((value = header_value(line, length, "transfer-encoding:", &value_length))) {
        response->chunked = contains(value, value_length, "chunked");
    } else if ((value = header_value(line, length, "content-encoding:", &value_length))) {
        response->encoded = !contains(value, value_length, "identity");
    } else if ((value = header_value(line, length, "connection:", &value_length))) {
        response->closes = contains(value, value_length, "close");
    } else if ((value = header_value(line, length, "stream-up-to-date:", &value_length))) {
        response->up_to_date = contains(value, value_length, "true");
    } else if ((value = header_value(line, length, "stream-next-offset:", &value_length))) {
        snprintf(response->next_offset, sizeof response->next_offset, "%.*s", (int)value_length, value);
    } else if ((value = header_value(line, length, "etag:", &value_length))) {
        snprintf(response->etag, sizeof response->etag, "%.*s", (int)value_length, value);
    }
}

static void head_is_complete(struct response *response)
{
    if (response->status < 200)
        memset(response, 0, sizeof *response); /* an interim response: the real one follows */
    else if (response->status == 204 || response->status == 304)
        response->state = COMPLETE;
    else if (response->chunked)
        response->state = CHUNK_SIZE;
    else if (response->sized && response->left == 0)
        response->state = COMPLETE;
    else
        response->state = BODY;
}

/* Reads the bytes up to the end of this response; gives the body to the sink, and answers how many bytes it used. */
static size_t response_feed(struct response *response, const char *bytes, size_t length, body_sink *sink, void *owner)
{
    const char *at = bytes, *end = bytes + length, *line;
    size_t line_length, piece;
    while (at < end && response->state != COMPLETE) {
        switch (response->state) {
        case HEAD:
            if (!take_line(response, &at, end, &line, &line_length))
                break;
            if (line_length)
                take_header(response, line, line_length);
            else if (response->status)
                head_is_complete(response);
            break;
        case CHUNK_SIZE:
            if (!take_line(response, &at, end, &line, &line_length))
                break;
            response->left = parse_number(line, line_length, 16);
            response->state = response->left ? CHUNK : TRAILERS;
            break;
        case BODY:
        case CHUNK:
            piece = (size_t)(end - at);
            if ((response->sized || response->chunked) && piece > response->left)
                piece = (size_t)response->left;
            if (sink)
                sink(owner, at, piece);
            at += piece;
            response->left -= piece;
            if (response->chunked && response->left == 0)
                response->state = CHUNK_END;
            else if (response->sized && response->left == 0)
                response->state = COMPLETE;
            break;
        case CHUNK_END:
            if (take_line(response, &at, end, &line, &line_length))
                response->state = CHUNK_SIZE;
            break;
        case TRAILERS:
            if (take_line(response, &at, end, &line, &line_length) && line_length == 0)
                response->state = COMPLETE;
            break;
        case COMPLETE:
            break;
        }
    }
    return (size_t)(at - bytes);
}

static void response_reset(struct response *response)
{
    memset(response, 0, offsetof(struct response, line));
}

/* -------------------------------------------------------------------------------------------------- connections */

static void resolve(void)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int problem = getaddrinfo(server_host, server_port, &hints, &found);
    if (problem)
        fail("%s:%s: %s", server_host, server_port, gai_strerror(problem));
    memcpy(&server_address, found->ai_addr, found->ai_addrlen);
    server_address_length = found->ai_addrlen;
    freeaddrinfo(found);
}

static void watch(int operation, int descriptor, uint32_t events, uint64_t tag)
{
    struct epoll_event event = {.events = events, .data.u64 = tag};
    if (epoll_ctl(poller, operation, descriptor, &event) != 0)
        fail("epoll_ctl: %s", strerror(errno));
}

static int dial(void)
{
    int descriptor = socket(server_address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    if (descriptor < 0)
        fail("socket: %s", strerror(errno));
    /* Set before connecting, or the kernel drops what an earlier, larger window let in, and backs off for seconds. */
    if (receive_buffer)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    if (connect(descriptor, (struct sockaddr *)&server_address, server_address_length) != 0)
        fail("cannot connect to %s:%s: %s", server_host, server_port, strerror(errno));
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return descriptor;
}

/* A keep-alive connection with at most one request under way. */
struct client {
    int descriptor;
    bool answered; /* at least once */
    bool underway; /* a request is */
    bool watching_output;
    uint64_t tag, sent_at;
    const char *unsent;
    size_t unsent_length;
    size_t number;   /* of the request under way, or of its stream */
    body_sink *sink; /* is given this client, and the body; may be null */
    struct response response;
};

enum outcome { WAITING, ANSWERED, BROKEN };

static void client_connect(struct client *client, uint64_t tag)
{
    client->descriptor = dial();
    client->tag = tag;
    client->underway = client->watching_output = false;
    client->unsent_length = 0;
    response_reset(&client->response);
    watch(EPOLL_CTL_ADD, client->descriptor, EPOLLIN, tag);
}

static void client_reconnect(struct client *client)
{
    close(client->descriptor);
    client_connect(client, client->tag);
}

/* Sends what it can of what is unsent; false when the connection is broken. */
static bool client_flush(struct client *client)
{
    while (client->unsent_length) {
        ssize_t sent = send(client->descriptor, client->unsent, client->unsent_length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN)
            return false;
        if (sent < 0)
            break;
        client->unsent += sent;
        client->unsent_length -= (size_t)sent;
    }
    bool wanted = client->unsent_length != 0;
    if (wanted != client->watching_output)
        watch(EPOLL_CTL_MOD, client->descriptor, wanted ? EPOLLIN | EPOLLOUT : EPOLLIN, client->tag);
    client->watching_output = wanted;
    return true;
}

static void client_send(struct client *client, const struct request *request)
{
    client->unsent = request->bytes;
    client->unsent_length = request->length;
    client->underway = true;
    client->sent_at = now_ns();
    client_flush(client); /* should the connection be broken, epoll says so next */
}

/* Goes on with what epoll announced: sends what is left of the request, reads what has come of the answer. */
static enum outcome client_continue(struct client *client, uint32_t events)
{
    struct response *response = &client->response;
    if ((events & EPOLLOUT) && !client_flush(client))
        return BROKEN;
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return WAITING;
    ssize_t length = recv(client->descriptor, received, sizeof received, MSG_DONTWAIT);
    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return WAITING;
    if (length == 0 && response->state == BODY && !response->sized)
        return ANSWERED; /* a body that ends with its connection */
    if (length <= 0)
        return BROKEN;
    size_t used = response_feed(response, received, (size_t)length, client->sink, client);
    if (used < (size_t)length)
        return BROKEN; /* an answer to no question */
    if (response->state != COMPLETE)
        return WAITING;
    return client->unsent_length ? BROKEN : ANSWERED;
}

/* Readies the client, answered or broken, for its next request. Tells whether the answer was a success. */
static bool client_conclude(struct client *client, enum outcome outcome)
{
    static bool told;
    struct response *response = &client->response;
    int status = outcome == ANSWERED ? response->status : 0;
    bool success = (status >= 200 && status < 300) || status == 304;
    if (client->underway && !success && !told) {
        fprintf(stderr, "load: a request was answered %d (0: not at all); others are only counted\n", status);
        told = true;
    }
    last_answer = now_ns();
    client->answered = true;
    client->underway = false;
    if (outcome == BROKEN || response->closes || response->state != COMPLETE)
        client_reconnect(client);
    response_reset(response);
    return success;
}

/* ------------------------------------------------------------------------------------------- tallies and phases */

static const char *tally_path;
static struct tally {
    uint64_t good, bad;
} *tallies; /* of each stream, when they are asked for */

static void tally_add(size_t number, uint64_t good, uint64_t bad)
{
    if (tallies) {
        tallies[number].good += good;
        tallies[number].bad += bad;
    }
}

static void tally_write(void)
{
    FILE *file = tallies ? fopen(tally_path, "w") : NULL;
    if (tallies && !file)
        fail("%s: %s", tally_path, strerror(errno));
    for (size_t number = 0; file && number < stream_count; number++)
        fprintf(file, "%" PRIu64 " %" PRIu64 "\n", tallies[number].good, tallies[number].bad);
    if (file && fclose(file) != 0)
        fail("%s: %s", tally_path, strerror(errno));
}

static size_t phase_count;
static struct phase {
    char name[32];
    struct histogram latency;
} phases[8];

static void begin_phase(const char *name, size_t length)
{
    if (phase_count == sizeof phases / sizeof *phases)
        fail("these are too many phases");
    snprintf(phases[phase_count++].name, sizeof phases->name, "%.*s", (int)length, name);
}

/* Begins the phases that stdin names, one a line, each written at once; false at its end. */
static bool take_phases(void)
{
    char text[256];
    ssize_t length = read(STDIN_FILENO, text, sizeof text);
    if (length <= 0)
        return false;
    const char *at = text, *end = text + length;
    for (const char *newline; (newline = memchr(at, '\n', (size_t)(end - at))); at = newline + 1)
        begin_phase(at, (size_t)(newline - at));
    return true;
}

static void print_phases(void)
{
    for (struct phase *phase = phases; phase < phases + phase_count; phase++)
        printf(", \"%s_requests\": %" PRIu64 ", \"%s_p50_us\": %.1f, \"%s_p99_us\": %.1f, \"%s_max_us\": %.1f",
               phase->name, phase->latency.count, phase->name, histogram_quantile_us(&phase->latency, 0.50),
               phase->name, histogram_quantile_us(&phase->latency, 0.99), phase->name,
               (double)phase->latency.largest / 1e3);
}

/* ----------------------------------------------------------------------------------- create, fill, append, read */

static struct histogram answer_latency;

/* The result of a run of requests. */
static void print_answers(uint64_t answers, uint64_t errors, const struct stopwatch *stopwatch)
{
    double passed = stopwatch_seconds(stopwatch), busy = stopwatch_busy(stopwatch);
    printf("{\"requests\": %" PRIu64 ", \"errors\": %" PRIu64 ", \"seconds\": %.3f, \"per_second\": %.1f, ", answers,
           errors, passed, (double)(answers - errors) / passed);
    print_latency(&answer_latency);
    print_phases();
    printf(", \"busy\": %.3f}\n", busy);
}

/* An idempotent producer, with a connection and a stream of its own. */
struct producer {
    char head[4096]; /* with marks for the two numbers */
    uint64_t sequence, random;
    struct request request; /* has room for the longest */
};

enum { LENGTH_MARK = 1, SEQUENCE_MARK = 2 };

/* Fills in the next request of a producer: marks become numbers, and the body is of another length. */
static const struct request *producer_render(struct producer *producer, size_t smallest, size_t largest)
{
    producer->random ^= producer->random << 13;
    producer->random ^= producer->random >> 7;
    producer->random ^= producer->random << 17;
    size_t length = smallest + producer->random % (largest - smallest + 1);
    char *to = producer->request.bytes;
    for (const char *from = producer->head;; from++) {
        size_t piece = strcspn(from, "\1\2");
        memcpy(to, from, piece);
        to += piece;
        from += piece;
        if (!*from)
            break;
        to += sprintf(to, "%" PRIu64, *from == LENGTH_MARK ? (uint64_t)length : producer->sequence);
    }
    fill_body(to, length);
    producer->request.length = (size_t)(to - producer->request.bytes) + length;
    return &producer->request;
}

/* Requests that are sent in turn: each once, or again and again until a deadline. */
struct turns {
    const struct request *requests;
    struct producer *producers;               /* one for each connection, in place of the requests; or null */
    size_t smallest, largest;                 /* bytes of their bodies */
    void (*note)(size_t, const struct response *); /* is given the number of a request and its answer; or null */
    size_t count, next, underway;
    bool once, silent; /* silent: prints no result */
};

static bool may_go_on(const struct turns *turns, uint64_t now, uint64_t deadline)
{
    return turns->once ? turns->next < turns->count : now < deadline;
}

static void take_turn(struct turns *turns, struct client *client)
{
    turns->underway++;
    if (turns->producers) {
        client->number = client->tag;
        client_send(client, producer_render(&turns->producers[client->tag], turns->smallest, turns->largest));
    } else {
        client->number = turns->next++ % turns->count;
        client_send(client, &turns->requests[client->number]);
    }
}

static void note_latency(uint64_t passed)
{
    histogram_add(&answer_latency, passed);
    if (phase_count)
        histogram_add(&phases[phase_count - 1].latency, passed);
}

/*
 * Runs the requests in turn over the connections, each sending its next as its last is answered: for so many seconds,
 * or, when that is 0, each request once. The clock of a timed run starts when every connection has had an answer, and
 * stops when every request has.
 */
static void closed_loop(struct turns turns, size_t connections, double seconds)
{
    bool timed = seconds > 0;
    struct client *clients = allocate(connections, sizeof *clients);
    struct epoll_event events[BATCH];
    struct stopwatch stopwatch = stopwatch_start();
    turns.once = !timed;
    uint64_t answers = 0, errors = 0, now = stopwatch.started, deadline = UINT64_MAX;
    size_t opened = 0, established = 0;
    last_answer = now;
    if (!timed && connections > turns.count)
        connections = turns.count;
    if (phase_count)
        watch(EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, STDIN);
    while (turns.underway || may_go_on(&turns, now, deadline)) {
        for (; opened < connections && opened - established < OPENING && may_go_on(&turns, now, deadline); opened++) {
            client_connect(&clients[opened], opened);
            take_turn(&turns, &clients[opened]);
        }
        int count = epoll_wait(poller, events, BATCH, 100);
        now = now_ns();
        if (count == 0)
            keep_patience(now);
        for (int index = 0; index < count; index++) {
            if (events[index].data.u64 == STDIN) {
                if (!take_phases()) {
                    watch(EPOLL_CTL_DEL, STDIN_FILENO, 0, STDIN);
                    deadline = now;
                }
                continue;
            }
            struct client *client = &clients[events[index].data.u64];
            bool first = !client->answered, expected = client->underway;
            enum outcome outcome = client_continue(client, events[index].events);
            if (outcome == WAITING)
                continue;
            now = now_ns();
            if (turns.note)
                turns.note(client->number, &client->response);
            bool success = client_conclude(client, outcome);
            if (!expected)
                continue; /* the server hung up on a connection with nothing under way */
            if (turns.producers && success)
                turns.producers[client->tag].sequence++;
            turns.underway--;
            answers++;
            errors += !success;
            tally_add(client->number % stream_count, success, !success);
            if (success)
                note_latency(now - client->sent_at);
            if (first && ++established == connections && timed && now < deadline) {
                memset(&answer_latency, 0, sizeof answer_latency);
                answers = errors = 0;
                stopwatch = stopwatch_start();
                deadline = stopwatch.started + (uint64_t)(seconds * (double)SECOND);
            }
            if (may_go_on(&turns, now, deadline))
                take_turn(&turns, client);
        }
    }
    if (!turns.silent)
        print_answers(answers, errors, &stopwatch);
    else if (errors)
        fail("%" PRIu64 " requests were refused before the measurement", errors);
    tally_write();
}

/* Renders a request for each stream that the path stands for, and runs them. */
static void run_requests(const char *method, const char *pattern, size_t connections, double seconds,
                         size_t body_length)
{
    struct request *requests = allocate(stream_count, sizeof *requests);
    char path[1024];
    for (size_t number = 0; number < stream_count; number++) {
        render_path(path, sizeof path, pattern, number);
        requests[number] = render_request(method, path, "*/*", strcmp(method, "GET") != 0, body_length, NULL);
        if (body_length)
            fill_body(requests[number].bytes + requests[number].length - body_length, body_length);
    }
    closed_loop((struct turns){.requests = requests, .count = stream_count}, connections, seconds);
}

/* Appends as idempotent producers, one for each connection. */
static void command_writers(const char *pattern, size_t connections, double seconds, size_t smallest, size_t largest)
{
    if (largest < smallest)
        fail("the largest body is smaller than the smallest");
    struct producer *producers = allocate(connections, sizeof *producers);
    char path[1024], more[500];
    for (size_t number = 0; number < connections; number++) {
        struct producer *producer = &producers[number];
        producer->random = number + 1;
        render_path(path, sizeof path, pattern, number % stream_count);
        snprintf(more, sizeof more,
                 "Content-Type: %.300s\r\nProducer-Id: writer-%zu\r\nProducer-Epoch: 0\r\nProducer-Seq: %c\r\n",
                 content_type, number, SEQUENCE_MARK);
        size_t length = render_head(producer->head, sizeof producer->head, "POST", path, "*/*",
                                    "Content-Length: \1\r\n", more);
        producer->request.bytes = allocate(1, length + 64 + largest);
    }
    closed_loop((struct turns){.producers = producers, .smallest = smallest, .largest = largest}, connections,
                seconds);
}

static struct {
    char (*offsets)[80]; /* at which the appends began */
    char (*etags)[120];  /* of what is read from there */
} followed;

static void note_offset(size_t number, const struct response *response)
{
    memcpy(followed.offsets[number], response->next_offset, sizeof *followed.offsets);
}

static void note_etag(size_t number, const struct response *response)
{
    memcpy(followed.etags[number], response->etag, sizeof *followed.etags);
}

/* Appends to each stream, then reads from the ends of these appends, now and then if something has changed. */
static void command_follow(const char *pattern, size_t connections, double seconds, size_t appends, size_t bytes)
{
    size_t count = stream_count * appends;
    struct request *requests = allocate(count, sizeof *requests);
    char path[1024], target[1200];
    followed.offsets = allocate(count, sizeof *followed.offsets);
    followed.etags = allocate(count, sizeof *followed.etags);
    for (size_t number = 0; number < count; number++) {
        render_path(path, sizeof path, pattern, number % stream_count);
        requests[number] = render_request("POST", path, "*/*", true, bytes, NULL);
        fill_body(requests[number].bytes + requests[number].length - bytes, bytes);
    }
    closed_loop((struct turns){.requests = requests, .count = count, .note = note_offset, .silent = true}, connections,
                0);
    for (int conditional = 0; conditional < 2; conditional++) {
        for (size_t number = 0; number < count; number++) {
            render_path(path, sizeof path, pattern, number % stream_count);
            snprintf(target, sizeof target, "%s?offset=%s", path, followed.offsets[number]);
            const char *condition = conditional && number % 8 == 7 ? followed.etags[number] : NULL;
            free(requests[number].bytes);
            requests[number] = render_request("GET", target, "*/*", false, 0, condition);
        }
        if (!conditional)
            closed_loop((struct turns){.requests = requests, .count = count, .note = note_etag, .silent = true},
                        connections, 0);
    }
    memset(&answer_latency, 0, sizeof answer_latency);
    closed_loop((struct turns){.requests = requests, .count = count}, connections, seconds);
}

/* ------------------------------------------------------------------------------------------------ check, replay */

/* A connection that reads streams whole: from the start, and on from where an answer ends before the tail. */
struct download {
    struct client client; /* first: its sink is given it */
    struct request request;
    uint64_t asked_at;    /* when the stream's start was asked for */
    uint64_t taken, part; /* bytes of the stream so far, and of it before this answer */
    bool damaged;
};

static struct {
    const char *pattern; /* of the path */
    char *sample;        /* the body that a stream consists of, again and again; or null, and any will do */
    size_t sample_length;
    uint64_t expected; /* bytes of a whole stream; 0 when not known */
    size_t next;       /* the turn of the stream to read next */
    uint64_t arrived, answers, streams, errors, damaged;
    uint64_t before; /* bytes that had arrived when the clock started */
} downloads;

static void take_piece(void *owner, const char *at, size_t length)
{
    struct download *download = owner;
    size_t piece;
    if (download->client.response.status != 200)
        return;
    for (size_t seen = 0; downloads.sample && seen < length; seen += piece) {
        size_t within = (download->taken + seen) % downloads.sample_length, room = downloads.sample_length - within;
        piece = room < length - seen ? room : length - seen;
        download->damaged |= memcmp(at + seen, downloads.sample + within, piece) != 0;
    }
    download->taken += length;
    downloads.arrived += length;
    last_answer = now_ns(); /* a long answer is no silence */
}

static void download_ask(struct download *download, const char *offset)
{
    char path[1024], target[1200];
    render_path(path, sizeof path, downloads.pattern, download->client.number);
    snprintf(target, sizeof target, "%s?offset=%s", path, offset);
    free(download->request.bytes);
    download->request = render_request("GET", target, "*/*", false, 0, NULL);
    download->part = download->taken;
    client_send(&download->client, &download->request);
}

static void download_start(struct download *download)
{
    download->client.number = downloads.next++ % stream_count;
    download->client.sink = take_piece;
    download->taken = 0;
    download->damaged = false;
    download_ask(download, "-1");
    download->asked_at = download->client.sent_at;
}

/* Counts a stream that was read to its end, or in vain. */
static void download_judge(struct download *download, bool success)
{
    size_t length = downloads.sample ? downloads.sample_length : 1;
    bool wrong = download->damaged || download->taken % length != 0
                 || (downloads.expected && download->taken != downloads.expected);
    downloads.streams++;
    downloads.errors += !success;
    downloads.damaged += success && wrong;
    tally_add(download->client.number, success && !wrong ? download->taken / length : 0, !success || wrong);
    if (success)
        note_latency(now_ns() - download->asked_at);
}

/* Goes on with what epoll announced; tells whether the connection is free for another stream. */
static bool download_continue(struct download *download, uint32_t events)
{
    struct client *client = &download->client;
    bool expected = client->underway;
    enum outcome outcome = client_continue(client, events);
    if (outcome == WAITING)
        return false;
    struct response response = client->response; /* as it is before it is readied for the next */
    bool success = client_conclude(client, outcome) && response.status == 200 && !response.encoded;
    if (!expected)
        return false;
    downloads.answers++;
    if (success && !response.up_to_date && response.next_offset[0] && download->taken > download->part) {
        download_ask(download, response.next_offset);
        return false;
    }
    download_judge(download, success);
    return true;
}

/*
 * Reads streams in turn over the connections, each whole: for so many seconds, or, when that is 0, each stream once.
 * The clock of a timed run starts when every connection has read one, and at its end what is under way is left.
 */
static void download_loop(const char *pattern, size_t connections, double seconds)
{
    bool timed = seconds > 0;
    struct download *clients = allocate(connections, sizeof *clients);
    struct epoll_event events[BATCH];
    struct stopwatch stopwatch = stopwatch_start();
    uint64_t now = stopwatch.started, deadline = UINT64_MAX;
    size_t established = 0, underway = 0;
    downloads.pattern = pattern;
    accept_encoding = "identity";
    last_answer = now;
    if (!timed && connections > stream_count)
        connections = stream_count;
    for (size_t index = 0; index < connections; index++, underway++) {
        client_connect(&clients[index].client, index);
        download_start(&clients[index]);
    }
    while (timed ? now < deadline : underway) {
        int count = epoll_wait(poller, events, BATCH, 100);
        now = now_ns();
        if (count == 0)
            keep_patience(now);
        for (int index = 0; index < count; index++) {
            struct download *download = &clients[events[index].data.u64];
            if (!download_continue(download, events[index].events))
                continue;
            if (timed && established < connections && ++established == connections) {
                memset(&answer_latency, 0, sizeof answer_latency);
                downloads.before = downloads.arrived;
                downloads.answers = downloads.streams = 0;
                stopwatch = stopwatch_start();
                deadline = stopwatch.started + (uint64_t)(seconds * (double)SECOND);
            }
            if (timed || downloads.next < stream_count)
                download_start(download);
            else
                underway--;
        }
    }
    double passed = stopwatch_seconds(&stopwatch), busy = stopwatch_busy(&stopwatch);
    printf("{\"streams\": %" PRIu64 ", \"answers\": %" PRIu64 ", \"errors\": %" PRIu64 ", \"damaged\": %" PRIu64
           ", \"seconds\": %.3f, \"bytes_per_second\": %.1f, \"all_bytes\": %" PRIu64 ", ",
           downloads.streams, downloads.answers, downloads.errors, downloads.damaged, passed,
           (double)(downloads.arrived - downloads.before) / passed, downloads.arrived);
    print_latency(&answer_latency);
    printf(", \"busy\": %.3f}\n", busy);
    tally_write();
}

/* Reads each stream once; each is to consist of bodies of this size, as append and fill send them. */
static void command_check(const char *pattern, size_t connections, size_t bytes)
{
    downloads.sample = allocate(1, bytes);
    downloads.sample_length = bytes;
    fill_body(downloads.sample, bytes);
    download_loop(pattern, connections, 0);
}

/* ------------------------------------------------------------------------------------------------------- events */

/* The one connection that appends numbered events to a stream. */
struct writer {
    struct client client;
    struct request request;
    char *body;
    size_t bytes;
    uint64_t sent, answers, errors;
};

static void writer_open(struct writer *writer, const char *path, size_t bytes)
{
    if (bytes < SMALLEST_EVENT)
        fail("an event has at least %d bytes", SMALLEST_EVENT);
    const char *port = server_port;
    if (writer_port) {
        server_port = writer_port;
        resolve();
    }
    memset(writer, 0, sizeof *writer);
    writer->bytes = bytes;
    writer->request = render_request("POST", path, "*/*", true, bytes, NULL);
    writer->body = writer->request.bytes + writer->request.length - bytes;
    memset(writer->body, 'x', bytes);
    memcpy(writer->body + bytes - 2, "\"}", 2);
    client_connect(&writer->client, WRITER);
    if (writer_port) {
        server_port = port;
        resolve();
    }
}

static void writer_send(struct writer *writer)
{
    char start[SMALLEST_EVENT + 1];
    int length = snprintf(start, sizeof start, "{\"n\":%" PRIu64 ",\"t\":%" PRIu64 ",\"p\":\"", writer->sent,
                          now_ns());
    if (length + 2 > SMALLEST_EVENT)
        fail("too many events");
    memset(writer->body, 'x', SMALLEST_EVENT - 2); /* over the last event's start, which may have been longer */
    memcpy(writer->body, start, (size_t)length);
    writer->sent++;
    client_send(&writer->client, &writer->request);
    last_answer = writer->client.sent_at;
}

/* Goes on with what epoll announced. */
static void writer_continue(struct writer *writer, uint32_t events)
{
    bool expected = writer->client.underway;
    enum outcome outcome = client_continue(&writer->client, events);
    if (outcome == WAITING)
        return;
    uint64_t passed = now_ns() - writer->client.sent_at;
    bool success = client_conclude(&writer->client, outcome);
    if (!expected)
        return;
    writer->answers++;
    writer->errors += !success;
    if (success)
        histogram_add(&answer_latency, passed);
}

/* -------------------------------------------------------------------------------------------------------- tails */

enum scan_state { SEEK, KEY, KEY_END, COLON, VALUE, NUMBER, TEXT };
enum { FOUND_N = 1, FOUND_T = 2, FOUND_P = 4, FOUND_ALL = 7 };

/* Where in the JSON of the events a tail is. Whitespace and the order of the members do not matter. */
struct scanner {
    enum scan_state state;
    char key;
    unsigned found;
    uint64_t number, n, t;
    size_t text;
};

enum field { NAME, EVENT, DATA, OTHER };

struct tail {
    int descriptor;
    bool ready; /* its first control event has come */
    struct response response;
    struct scanner scanner;
    /* the line and the event of SSE that it is in */
    enum field field;
    bool after_colon;
    char name[8];
    unsigned name_length;
    char kind; /* first letter of the event's name: c(ontrol) or d(ata) */
    char control[320];
    size_t control_length;
    char offset[80]; /* where to go on from, as last told */
    /* the events that it has had */
    uint64_t next, taken;
    uint64_t seen[WINDOW / 64];
};

static struct histogram arrival_latency;

static struct {
    struct tail *tails;
    size_t count, opened, ready;
    size_t bytes; /* of an event; 0 when not known */
    char path[1024];
    uint64_t arrived;    /* when the bytes that are read now came */
    uint64_t last_taken; /* when the last event came */
    uint64_t taken, doubled, out_of_order, damaged, reconnects;
} audience;

static size_t digits(uint64_t number)
{
    size_t count = 1;
    while (number >= 10)
        number /= 10, count++;
    return count;
}

static inline uint64_t *seen_word(struct tail *tail, uint64_t number)
{
    return &tail->seen[number % WINDOW / 64];
}

static inline uint64_t seen_bit(uint64_t number)
{
    return UINT64_C(1) << (number % 64);
}

/* Takes an event that has come to a tail. */
static void take_event(struct tail *tail, uint64_t number, uint64_t sent_at, size_t text)
{
    static const size_t frame = sizeof "{\"n\":,\"t\":,\"p\":\"\"}" - 1;
    if (sent_at > audience.arrived || (number > tail->next && number - tail->next > (UINT64_C(1) << 32))
        || (audience.bytes && frame + digits(number) + digits(sent_at) + text != audience.bytes)) {
        audience.damaged++;
        return;
    }
    if (number >= tail->next) {
        uint64_t gap = number - tail->next;
        for (uint64_t missing = gap > WINDOW ? number - WINDOW : tail->next; missing < number; missing++)
            *seen_word(tail, missing) &= ~seen_bit(missing);
        tail->next = number + 1;
    } else if (tail->next - number > WINDOW || (*seen_word(tail, number) & seen_bit(number))) {
        audience.doubled++;
        return;
    } else {
        audience.out_of_order++;
    }
    *seen_word(tail, number) |= seen_bit(number);
    tail->taken++;
    audience.taken++;
    audience.last_taken = audience.arrived;
    histogram_add(&arrival_latency, audience.arrived - sent_at);
}

static void scan(struct tail *tail, const char *at, const char *end)
{
    struct scanner *scanner = &tail->scanner;
    while (at < end) {
        char character = *at;
        switch (scanner->state) {
        case SEEK:
            at++;
            if (character == '"') {
                scanner->state = KEY;
            } else if (character == '{') {
                scanner->found = 0;
            } else if (character == '}') {
                if (scanner->found == FOUND_ALL)
                    take_event(tail, scanner->n, scanner->t, scanner->text);
                else
                    audience.damaged++;
                scanner->found = 0;
            }
            break;
        case KEY:
            at++;
            scanner->key = character;
            scanner->state = KEY_END;
            break;
        case KEY_END:
            at++;
            if (character == '"')
                scanner->state = COLON;
            else
                scanner->key = 0; /* a longer name is none of ours */
            break;
        case COLON:
            at++;
            if (character == ':')
                scanner->state = VALUE;
            break;
        case VALUE:
            if (character == '"') {
                at++;
                scanner->state = TEXT;
                if (scanner->key == 'p')
                    scanner->text = 0;
            } else if (character == ' ' || character == '\t') {
                at++;
            } else {
                scanner->number = 0;
                scanner->state = NUMBER;
            }
            break;
        case NUMBER:
            if (character >= '0' && character <= '9') {
                at++;
                scanner->number = scanner->number * 10 + (uint64_t)(character - '0');
                break;
            }
            if (scanner->key == 'n') {
                scanner->n = scanner->number;
                scanner->found |= FOUND_N;
            } else if (scanner->key == 't') {
                scanner->t = scanner->number;
                scanner->found |= FOUND_T;
            }
            scanner->state = SEEK;
            break;
        case TEXT: {
            const char *quote = memchr(at, '"', (size_t)(end - at));
            scanner->text += (size_t)((quote ? quote : end) - at);
            if (quote) {
                if (scanner->key == 'p')
                    scanner->found |= FOUND_P;
                scanner->state = SEEK;
            }
            at = quote ? quote + 1 : end;
            break;
        }
        }
    }
}

/* An event of SSE is complete. */
static void end_event(struct tail *tail)
{
    static const char name[] = "\"streamNextOffset\"";
    if (tail->kind == 'c') {
        const char *end = tail->control + tail->control_length;
        const char *at = memmem(tail->control, tail->control_length, name, sizeof name - 1);
        const char *opening = at ? memchr(at + sizeof name - 1, '"', (size_t)(end - at) - (sizeof name - 1)) : NULL;
        const char *closing = opening ? memchr(opening + 1, '"', (size_t)(end - opening - 1)) : NULL;
        if (closing && (size_t)(closing - opening) <= sizeof tail->offset) {
            memcpy(tail->offset, opening + 1, (size_t)(closing - opening - 1));
            tail->offset[closing - opening - 1] = 0;
        } else {
            audience.damaged++;
        }
        if (!tail->ready) {
            tail->ready = true;
            audience.ready++;
        }
    }
    tail->kind = 0;
    tail->control_length = 0;
}

/* Takes a piece of the value of a field. */
static void take_value(struct tail *tail, const char *at, const char *end)
{
    if (at < end && tail->after_colon) {
        tail->after_colon = false;
        if (*at == ' ')
            at++;
    }
    if (at == end)
        return;
    if (tail->field == EVENT && tail->kind == 0) {
        tail->kind = *at;
    } else if (tail->field == DATA && tail->kind == 'c') {
        size_t length = (size_t)(end - at), room = sizeof tail->control - tail->control_length;
        if (length > room)
            length = room;
        memcpy(tail->control + tail->control_length, at, length);
        tail->control_length += length;
    } else if (tail->field == DATA) {
        scan(tail, at, end);
    }
}

static enum field field_named(const char *name, unsigned length)
{
    if (length == 4 && memcmp(name, "data", 4) == 0)
        return DATA;
    if (length == 5 && memcmp(name, "event", 5) == 0)
        return EVENT;
    return OTHER;
}

/* Reads a piece of an SSE body. */
static void take_sse(void *owner, const char *at, size_t length)
{
    struct tail *tail = owner;
    const char *end = at + length;
    while (at < end) {
        if (tail->field == NAME) {
            char character = *at++;
            if (character == ':') {
                tail->field = field_named(tail->name, tail->name_length);
                tail->after_colon = true;
            } else if (character == '\n') {
                if (tail->name_length == 0)
                    end_event(tail);
                tail->name_length = 0;
            } else if (character != '\r' && tail->name_length < sizeof tail->name) {
                tail->name[tail->name_length++] = character;
            }
        } else {
            const char *newline = memchr(at, '\n', (size_t)(end - at));
            take_value(tail, at, newline ? newline : end);
            at = newline ? newline + 1 : end;
            if (newline) {
                tail->field = NAME;
                tail->name_length = 0;
            }
        }
    }
}

/* Connects a tail, or connects it again, and asks from where it stands. */
static void tail_connect(struct tail *tail)
{
    char path[sizeof audience.path + 128];
    snprintf(path, sizeof path, "%s?live=sse&offset=%s", audience.path, tail->offset[0] ? tail->offset : "now");
    struct request request = render_request("GET", path, "text/event-stream", false, 0, NULL);
    tail->descriptor = dial();
    response_reset(&tail->response);
    memset(&tail->scanner, 0, sizeof tail->scanner);
    tail->field = NAME;
    tail->name_length = 0;
    tail->kind = 0;
    tail->control_length = 0;
    if (send(tail->descriptor, request.bytes, request.length, MSG_NOSIGNAL) != (ssize_t)request.length)
        fail("the server hangs up on a tail");
    free(request.bytes);
    watch(EPOLL_CTL_ADD, tail->descriptor, EPOLLIN, (uint64_t)(tail - audience.tails));
}

static void tail_read(struct tail *tail)
{
    struct response *response = &tail->response;
    ssize_t length = recv(tail->descriptor, received, sizeof received, MSG_DONTWAIT);
    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (length > 0) {
        audience.arrived = now_ns();
        bool before = response->state == HEAD;
        response_feed(response, received, (size_t)length, take_sse, tail);
        if (before && response->state != HEAD && (response->status != 200 || response->encoded))
            fail("a tail was answered %d%s", response->status, response->encoded ? ", encoded" : "");
        if (response->state != COMPLETE)
            return;
    }
    /* The server ended this response, as it may: go on from the last offset. */
    if (!tail->ready)
        fail("the server hangs up on a tail before its first control event");
    close(tail->descriptor);
    audience.reconnects++;
    tail_connect(tail);
}

static void audience_prepare(const char *path, size_t count, size_t bytes)
{
    snprintf(audience.path, sizeof audience.path, "%s", path);
    audience.count = count;
    audience.bytes = bytes;
    audience.tails = allocate(count, sizeof *audience.tails);
}

/* Opens the tails, some at a time, until the first control event of each has come. */
static void audience_open(void)
{
    struct epoll_event events[BATCH];
    uint64_t deadline = now_ns() + (uint64_t)((drain_seconds + 30) * (double)SECOND);
    while (audience.ready < audience.count) {
        while (audience.opened < audience.count && audience.opened - audience.ready < OPENING)
            tail_connect(&audience.tails[audience.opened++]);
        int count = epoll_wait(poller, events, BATCH, 1000);
        for (int index = 0; index < count; index++)
            tail_read(&audience.tails[events[index].data.u64]);
        if (now_ns() > deadline)
            fail("only %zu of %zu tails were answered", audience.ready, audience.count);
    }
}

/* Waits at most so long for what epoll announces, and hands it on. Its result: whether TIMER or STDIN fired. */
static bool serve(struct writer *writer, int milliseconds)
{
    struct epoll_event events[BATCH];
    bool fired = false;
    int count = epoll_wait(poller, events, BATCH, milliseconds);
    if (writer && writer->client.underway)
        keep_patience(now_ns());
    for (int index = 0; index < count; index++) {
        uint64_t tag = events[index].data.u64;
        if (tag == WRITER)
            writer_continue(writer, events[index].events);
        else if (tag == TIMER || tag == STDIN)
            fired = true;
        else
            tail_read(&audience.tails[tag]);
    }
    return fired;
}

/* Waits until every tail has had so many events, or too long; then a little longer, for what nobody should send. */
static void drain(struct writer *writer, uint64_t events)
{
    uint64_t deadline = now_ns() + (uint64_t)(drain_seconds * (double)SECOND);
    while (audience.taken < events * audience.count && now_ns() < deadline)
        serve(writer, 100);
    deadline = now_ns() + SECOND / 5;
    while (now_ns() < deadline)
        serve(writer, 50);
}

static void print_audience(uint64_t sent)
{
    uint64_t lost = 0, complete = 0;
    for (size_t index = 0; index < audience.count; index++) {
        uint64_t taken = audience.tails[index].taken;
        lost += taken < sent ? sent - taken : 0;
        complete += taken == sent;
    }
    printf("\"tails\": %zu, \"complete\": %" PRIu64 ", \"deliveries\": %" PRIu64 ", \"lost\": %" PRIu64
           ", \"out_of_order\": %" PRIu64 ", \"doubled\": %" PRIu64 ", \"damaged\": %" PRIu64
           ", \"reconnects\": %" PRIu64,
           audience.count, complete, audience.taken, lost, audience.out_of_order, audience.doubled,
           audience.damaged, audience.reconnects);
}

/* The result of a run with a writer and tails, but for its end. */
static void print_run(const struct writer *writer, const struct stopwatch *stopwatch, double writing, double busy)
{
    double delivering = (double)(audience.last_taken - stopwatch->started) / (double)SECOND;
    printf("{\"events\": %" PRIu64 ", \"errors\": %" PRIu64 ", \"seconds\": %.3f, \"appends_per_second\": %.1f, "
           "\"deliveries_per_second\": %.1f, ",
           writer->sent, writer->errors, writing, (double)(writer->answers - writer->errors) / writing,
           audience.taken ? (double)audience.taken / delivering : 0);
    print_audience(writer->sent - writer->errors);
    printf(", ");
    print_latency(&arrival_latency);
    printf(", \"busy\": %.3f}\n", busy);
}

/* ----------------------------------------------------------------------------------------------------- commands */

static void command_write(const char *path, uint64_t events, size_t bytes)
{
    struct writer writer;
    writer_open(&writer, path, bytes);
    struct stopwatch stopwatch = stopwatch_start();
    while (writer.answers < events) {
        if (!writer.client.underway)
            writer_send(&writer);
        serve(&writer, 100);
    }
    print_answers(writer.answers, writer.errors, &stopwatch);
}

/* Each event is sent when its time has come and the one before it is answered. */
static void command_tails(const char *path, size_t tails, uint64_t events, double rate, size_t bytes)
{
    struct writer writer;
    audience_prepare(path, tails, bytes);
    audience_open();
    writer_open(&writer, path, bytes);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    watch(EPOLL_CTL_ADD, timer, EPOLLIN, TIMER);
    struct stopwatch stopwatch = stopwatch_start();
    uint64_t armed = 0;
    while (writer.answers < events) {
        uint64_t due = stopwatch.started + (uint64_t)((double)writer.sent * (double)SECOND / rate);
        if (!writer.client.underway && writer.sent < events && now_ns() >= due) {
            writer_send(&writer);
        } else if (!writer.client.underway && armed != due) {
            struct itimerspec at = {.it_value = {(time_t)(due / SECOND), (long)(due % SECOND)}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
            armed = due;
        }
        if (serve(&writer, 100)) {
            uint64_t expirations;
            if (read(timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN)
                fail("timer: %s", strerror(errno));
        }
    }
    double writing = stopwatch_seconds(&stopwatch), busy = stopwatch_busy(&stopwatch);
    drain(&writer, writer.sent - writer.errors);
    print_run(&writer, &stopwatch, writing, busy);
}

static void command_fanout(const char *path, size_t tails, double seconds, size_t bytes)
{
    struct writer writer;
    audience_prepare(path, tails, bytes);
    audience_open();
    writer_open(&writer, path, bytes);
    struct stopwatch stopwatch = stopwatch_start();
    uint64_t deadline = stopwatch.started + (uint64_t)(seconds * (double)SECOND);
    while (writer.client.underway || now_ns() < deadline) {
        if (!writer.client.underway)
            writer_send(&writer);
        serve(&writer, 100);
    }
    double writing = stopwatch_seconds(&stopwatch), busy = stopwatch_busy(&stopwatch);
    drain(&writer, writer.sent - writer.errors);
    print_run(&writer, &stopwatch, writing, busy);
}

/* Says that the tails are open. */
static void announce(void)
{
    printf("{\"tails\": %zu}\n", audience.ready);
    fflush(stdout);
}

static void command_idle(const char *path, size_t tails)
{
    char line[64];
    audience_prepare(path, tails, 0);
    audience_open();
    announce();
    watch(EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, STDIN);
    while (!serve(NULL, 1000) || read(STDIN_FILENO, line, sizeof line) > 0)
        continue;
    printf("{");
    print_audience(0);
    printf("}\n");
}

static void command_stall(const char *path, size_t tails)
{
    uint64_t events;
    receive_buffer = STALLED_RECEIVE_BUFFER;
    audience_prepare(path, tails, 0);
    audience_open();
    announce();
    if (scanf("%" SCNu64 " %zu", &events, &audience.bytes) != 2)
        fail("stdin was to say: EVENTS BYTES");
    struct stopwatch stopwatch = stopwatch_start();
    drain(NULL, events);
    double passed = audience.taken ? (double)(audience.last_taken - stopwatch.started) / (double)SECOND : 0;
    printf("{\"seconds\": %.3f, ", passed);
    print_audience(events);
    printf(", \"busy\": %.3f}\n", stopwatch_busy(&stopwatch));
}

/* ---------------------------------------------------------------------------------------------------- arguments */

static double positive(const char *text)
{
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end || !(number > 0))
        fail("this is no positive number: %s", text);
    return number;
}

static const char *bearer(const char *token)
{
    static char line[2048];
    int length = snprintf(line, sizeof line, "Authorization: Bearer %s\r\n", token);
    if (length < 0 || (size_t)length >= sizeof line)
        fail("the token is too long");
    return line;
}

int main(int count, char **words)
{
    static const struct option options[] = {
        {"type", required_argument, NULL, 't'},
        {"streams", required_argument, NULL, 's'},
        {"drain", required_argument, NULL, 'd'},
        {"connections", required_argument, NULL, 'c'},
        {"ttl", required_argument, NULL, 'l'},
        {"tally", required_argument, NULL, 'y'},
        {"phases", required_argument, NULL, 'p'},
        {"headers", required_argument, NULL, 'h'},
        {"writer-port", required_argument, NULL, 'w'},
        {"token", required_argument, NULL, 'a'},
        {0},
    };
    static const struct {
        const char *name;
        int arguments;
    } commands[] = {{"create", 1}, {"append", 3}, {"writers", 4}, {"read", 2},   {"follow", 4}, {"fill", 2}, {"check", 2},
                    {"replay", 3}, {"write", 2},  {"tails", 4},   {"fanout", 3}, {"idle", 1},   {"stall", 1}};
    for (int option; (option = getopt_long(count, words, "", options, NULL)) != -1;) {
        if (option == 't')
            content_type = optarg;
        else if (option == 's')
            stream_count = (size_t)positive(optarg);
        else if (option == 'd')
            drain_seconds = positive(optarg);
        else if (option == 'c')
            create_connections = (size_t)positive(optarg);
        else if (option == 'l')
            time_to_live = (unsigned)positive(optarg);
        else if (option == 'y')
            tally_path = optarg;
        else if (option == 'p')
            begin_phase(optarg, strlen(optarg));
        else if (option == 'w')
            writer_port = optarg;
        else if (option == 'a')
            authorization = bearer(optarg);
        else if (option == 'h' && (strcmp(optarg, "browser") == 0 || strcmp(optarg, "client") == 0))
            from_browser = *optarg == 'b';
        else
            return 2;
    }
    const char *command = optind < count ? words[optind] : "";
    int wanted = 0;
    for (size_t index = 0; index < sizeof commands / sizeof *commands; index++)
        if (strcmp(command, commands[index].name) == 0)
            wanted = commands[index].arguments;
    if (!wanted || count - optind != 4 + wanted)
        fail("usage: load COMMAND HOST PORT PATH NUMBERS... (see load.c)");
    server_host = words[optind + 1];
    server_port = words[optind + 2];
    const char *path = words[optind + 3];
    double number[4] = {0};
    for (int index = 0; index < wanted; index++)
        number[index] = positive(words[optind + 4 + index]);
    resolve();
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0)
        fail("epoll_create1: %s", strerror(errno));

    if (strcmp(command, "create") == 0)
        stream_count = (size_t)number[0];
    if (tally_path)
        tallies = allocate(stream_count, sizeof *tallies);

    if (strcmp(command, "create") == 0) {
        run_requests("PUT", path, create_connections, 0, 0);
    } else if (strcmp(command, "append") == 0) {
        run_requests("POST", path, (size_t)number[0], number[1], (size_t)number[2]);
    } else if (strcmp(command, "read") == 0) {
        run_requests("GET", path, (size_t)number[0], number[1], 0);
    } else if (strcmp(command, "writers") == 0) {
        command_writers(path, (size_t)number[0], number[1], (size_t)number[2], (size_t)number[3]);
    } else if (strcmp(command, "follow") == 0) {
        command_follow(path, (size_t)number[0], number[1], (size_t)number[2], (size_t)number[3]);
    } else if (strcmp(command, "fill") == 0) {
        run_requests("POST", path, (size_t)number[0], 0, (size_t)number[1]);
    } else if (strcmp(command, "check") == 0) {
        command_check(path, (size_t)number[0], (size_t)number[1]);
    } else if (strcmp(command, "replay") == 0) {
        downloads.expected = (uint64_t)number[2];
        download_loop(path, (size_t)number[0], number[1]);
    } else if (strcmp(command, "write") == 0) {
        command_write(path, (uint64_t)number[0], (size_t)number[1]);
    } else if (strcmp(command, "tails") == 0) {
        command_tails(path, (size_t)number[0], (uint64_t)number[1], number[2], (size_t)number[3]);
    } else if (strcmp(command, "fanout") == 0) {
        command_fanout(path, (size_t)number[0], number[1], (size_t)number[2]);
    } else if (strcmp(command, "idle") == 0) {
        command_idle(path, (size_t)number[0]);
    } else {
        command_stall(path, (size_t)number[0]);
    }
    return 0;
}
