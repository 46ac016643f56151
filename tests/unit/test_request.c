/* src/shell/request.h and call.h: a line in, typed arguments; an answer out. */
#include "shell/call.h"
#include "unit.h"

#include <stdlib.h>

static void lines(void **state) {
  (void)state;
  static const struct {
    const char *why, *line;
    bool good;
  } rows[] = {
      {"a request", "{\"command\":\"status\"}", true},
      {"blanks around it", " {\"command\": \"status\"}\r", true},
      {"garbage", "\x00\xff\x01garbage", false},
      {"HTTP", "GET / HTTP/1.1", false},
      {"empty object", "{}", false},
      {"a list", "[1]", false},
      {"a number as command", "{\"command\":1}", false},
      {"two documents", "{\"command\":\"a\"}{\"command\":\"b\"}", false},
      {"a key twice", "{\"command\":\"a\",\"command\":\"b\"}", false},
      {"not UTF-8", "{\"command\":\"\xff\"}", false},
      {"cut off", "{\"command\":\"sta", false},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct request request;
    struct why why = {""};
    row_true(rows[i].why,
             (request_parse(rows[i].line, strlen(rows[i].line), &request, &why) == TARN_OK) == rows[i].good);
    row_true(rows[i].why, rows[i].good || why.text[0]);
    row_true(rows[i].why, rows[i].good == (request.json != NULL));
    request_free(&request);
  }
}

/* `count` of `item` in an object's list or in the object itself. */
static tarn_err parse_many(const char *begin, const char *item, size_t count, const char *end, struct why *why) {
  struct request request;
  char *line = malloc(strlen(begin) + count * strlen(item) + strlen(end) + 1), *at = line;
  assert_non_null(line);
  at = stpcpy(at, begin);
  while (count-- > 0) at = stpcpy(at, item);
  at = stpcpy(at, end);
  tarn_err err = request_parse(line, (size_t)(at - line), &request, why);
  request_free(&request);
  free(line);
  return err;
}

/* A parser takes its time over them: the request is refused for their number, whatever else may be wrong with it. */
static void many_items(void **state) {
  (void)state;
  static const struct {
    const char *why, *begin, *item, *end;
    size_t most; /* that are good */
  } rows[] = {
      {"a list", "{\"command\":\"x\",\"l\":[1", ",1", "]}", REQUEST_ITEMS_MAX - 6},
      {"commas in a text do not count", "{\"command\":\"x\",\"t\":\"\\\"", ",[{:\\\\", "\"}", 100000},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct why why = {""};
    row_true(rows[i].why, parse_many(rows[i].begin, rows[i].item, rows[i].most, rows[i].end, &why) == TARN_OK);
    if (i > 0) continue;
    row_true(rows[i].why, parse_many(rows[i].begin, rows[i].item, rows[i].most + 1, rows[i].end, &why) != TARN_OK);
    row_true(rows[i].why, strstr(why.text, "more than 1000 keys and values"));
  }
  struct why why = {""};
  assert_int_equal(parse_many("{", "\"k\":1,", 80000, "\"command\":\"x\"}", &why), TARN_INVALID);
  assert_non_null(strstr(why.text, "more than 1000"));
  assert_int_equal(parse_many("", "[", 100000, "", &why), TARN_INVALID);
  assert_non_null(strstr(why.text, "more than 1000"));
}

static void arguments(void **state) {
  (void)state;
  static const char line[] =
      "{\"command\":\"x\",\"text\":\"t\",\"flag\":true,\"list\":[\"a\",\"b\"],\"mixed\":[\"a\",1],\"null\":null}";
  static const char *const known[] = {"text", "flag", "list", "mixed", "null", NULL}, *const fewer[] = {"text", NULL};
  struct request request;
  const char *text, *texts[2];
  size_t count;
  bool flag;
  assert_int_equal(request_parse(line, strlen(line), &request, NULL), TARN_OK);
  assert_int_equal(request_text(&request, "text", &text, NULL), TARN_OK);
  assert_string_equal(text, "t");
  assert_int_equal(request_text(&request, "null", &text, NULL), TARN_OK);
  assert_null(text);
  assert_int_equal(request_text(&request, "absent", &text, NULL), TARN_OK);
  assert_null(text);
  assert_int_equal(request_text(&request, "flag", &text, NULL), TARN_INVALID);
  assert_int_equal(request_flag(&request, "flag", &flag, NULL), TARN_OK);
  assert_true(flag);
  assert_int_equal(request_flag(&request, "absent", &flag, NULL), TARN_OK);
  assert_false(flag);
  assert_int_equal(request_flag(&request, "text", &flag, NULL), TARN_INVALID);
  assert_int_equal(request_texts(&request, "list", texts, 2, &count, NULL), TARN_OK);
  assert_int_equal(count, 2);
  assert_string_equal(texts[1], "b");
  assert_int_equal(request_texts(&request, "list", texts, 1, &count, NULL), TARN_INVALID);
  assert_int_equal(request_texts(&request, "mixed", texts, 2, &count, NULL), TARN_INVALID);
  assert_int_equal(request_texts(&request, "text", texts, 2, &count, NULL), TARN_INVALID);
  assert_int_equal(request_only(&request, known, NULL), TARN_OK);
  assert_int_equal(request_only(&request, fewer, NULL), TARN_INVALID);
  request_free(&request);
}

static void nothing(struct call *call) { assert_true(call->answered); }

static void answers(void **state) {
  (void)state;
  struct call done = {.done = nothing}, refused = {.done = nothing}, misused = {.done = nothing};
  call_warn(&done, "mind the %s", "gap");
  call_done(&done, json_pack("{s:i}", "x", 1));
  char *text = call_answer_text(&done);
  assert_string_equal(text, "{\"ok\":true,\"result\":{\"x\":1},\"warnings\":[\"mind the gap\"]}\n");
  free(text);
  call_warn(&refused, "dropped with a refusal");
  call_refuse(&refused, "no: \xff");
  text = call_answer_text(&refused);
  assert_string_equal(text, "{\"ok\":false,\"usage\":false,\"error\":\"no: ?\"}\n");
  free(text);
  call_misused(&misused, "what?");
  text = call_answer_text(&misused);
  assert_string_equal(text, "{\"ok\":false,\"usage\":true,\"error\":\"what?\"}\n");
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(lines), cmocka_unit_test(many_items), cmocka_unit_test(arguments),
                                     cmocka_unit_test(answers)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
