#include "clients/gateway/api/errors.hpp"

#include <algorithm>
#include <cmath>
#include <random>

#include "clients/gateway/encoding/json_text.hpp"

namespace tessera::gateway {

using http::Family;
using http::Problem;
using http::Response;

namespace {

// OpenAI's client gives up when it is told to wait longer than a minute or two.
constexpr double kRetryMinS = 1;
constexpr double kRetryMaxS = 60;

std::string_view openai_type(const Problem& problem) {
  switch (problem.status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 429:
      return problem.code == "rate_limit_exceeded" ? "tokens" : "requests";
    default:
      return problem.status >= 500 ? "server_error" : "invalid_request_error";
  }
}

std::string openai_body(const Problem& problem) {
  std::string body = R"({"error":{"message":)" + json_string(problem.message) + R"(,"type":)" +
                     json_string(openai_type(problem)) + R"(,"param":)";
  body += problem.param.empty() ? "null" : json_string(problem.param);
  body += R"(,"code":)" + (problem.code.empty() ? "null" : json_string(problem.code)) + "}}";
  return body;
}

std::string_view tei_type(const Problem& problem) {
  if (problem.code == "empty_input") {
    return "Empty";
  }
  switch (problem.status) {
    case 429:
      return "Overloaded";
    case 503:
      return "Unhealthy";
    case 500:
      return "Backend";
    default:
      return problem.code == "context_length_exceeded" ? "Tokenizer" : "Validation";
  }
}

std::string body_of(Family family, const Problem& problem) {
  switch (family) {
    case Family::kTei:
      return R"({"error":)" + json_string(problem.message) + R"(,"error_type":")" +
             std::string(tei_type(problem)) + R"("})";
    case Family::kCohere:
      return R"({"message":)" + json_string(problem.message) + "}";
    case Family::kOllama:
      return R"({"error":)" + json_string(problem.message) + "}";
    default:
      return openai_body(problem);
  }
}

void add_retry_headers(const Problem& problem, Response& response) {
  if (problem.should_retry) {
    response.headers.add("x-should-retry", *problem.should_retry ? "true" : "false");
  }
  if (problem.retry_after.count() <= 0) {
    return;
  }
  thread_local std::minstd_rand random(std::random_device{}());
  const double asked = static_cast<double>(problem.retry_after.count()) / 1000;
  const double spread = std::uniform_real_distribution<double>(1.0, 1.25)(random);
  const double wait = std::clamp(std::max(asked, kRetryMinS) * spread, kRetryMinS, kRetryMaxS);
  response.headers.add("retry-after", std::to_string(static_cast<int>(std::ceil(wait))));
  response.headers.add("retry-after-ms", std::to_string(static_cast<int>(std::ceil(wait * 1000))));
}

}  // namespace

Problem invalid_value(std::string_view field, std::string_view sentence) {
  return {.status = 400,
          .code = "invalid_value",
          .message = std::string(field) + " " + std::string(sentence),
          .param = std::string(field)};
}

Response json_response(std::string body, int status) {
  Response response{.status = status};
  response.body = std::move(body);
  return response;
}

Response respond_to_problem(Family family, const Problem& problem) {
  Problem told = problem;
  if (family == Family::kTei) {  // TEI's own numbers: 422 for what is wrong in a body.
    told.status = problem.status == 400 && problem.code != "empty_input" ? 422
                  : problem.status == 500                                ? 424
                                                                         : problem.status;
  }
  Response response = json_response(body_of(family, problem), told.status);
  add_retry_headers(problem, response);
  if (problem.status == 401) {
    response.headers.add("www-authenticate", "Bearer realm=\"tessera\"");
    response.headers.add("www-authenticate", "Basic realm=\"tessera\", charset=\"UTF-8\"");
  }
  return response;
}

}  // namespace tessera::gateway
