#include <gtest/gtest.h>
#include <sodium.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "clients/gateway/api/errors.hpp"
#include "clients/gateway/api/vectors_body.hpp"
#include "clients/gateway/http/router.hpp"

namespace tessera::gateway {
namespace {

using Form = VectorSection::Form;

// Two blocks of rows that count up.
EmbedAnswer answer_of(std::size_t items, std::uint32_t dimensions) {
  EmbedAnswer answer;
  answer.items = items;
  answer.dimensions = dimensions;
  const std::size_t first = items / 2;
  for (const std::size_t count : {first, items - first}) {
    if (count == 0) {
      continue;
    }
    const std::size_t start = answer.blocks.empty() ? 0 : first;
    answer.first_items.push_back(start);
    protocol::ResultBlock block;
    block.codes.assign(count, 0);
    block.dimensions = dimensions;
    std::vector<float> values(count * dimensions);
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(start * dimensions + i) / 1024;
    }
    block.payload.resize(values.size() * sizeof(float));
    std::memcpy(block.payload.data(), values.data(), block.payload.size());
    answer.blocks.push_back(std::move(block));
  }
  return answer;
}

std::string written(http::BodySource& body, std::size_t* slices = nullptr) {
  std::string all;
  for (auto state = http::BodySource::State::kMore; state != http::BodySource::State::kEnd;) {
    std::string slice;
    state = body.next(slice);
    all += slice;
    *(slices == nullptr ? std::make_unique<std::size_t>(0).get() : slices) += 1;
  }
  return all;
}

std::vector<float> floats_of(const std::string& base64) {
  std::vector<float> values(base64.size());
  std::size_t length = 0;
  EXPECT_EQ(sodium_base642bin(reinterpret_cast<unsigned char*>(values.data()),
                              values.size() * sizeof(float), base64.data(), base64.size(), nullptr,
                              &length, nullptr, sodium_base64_VARIANT_ORIGINAL),
            0);
  values.resize(length / sizeof(float));
  return values;
}

TEST(VectorsBody, EveryRowStandsAtItsIndexInEveryForm) {
  for (const std::size_t items : {1U, 2U, 3U, 9U, 10U, 11U, 101U, 700U}) {
    for (const Form form : {Form::kList, Form::kBase64}) {
      const std::uint32_t dimensions = 32;
      VectorsBody body(
          answer_of(items, dimensions),
          {{.before = R"({"data":[)", .form = form, .openai_rows = true, .after = "]}"}});
      const auto size = body.size();
      const std::string text = written(body);
      if (size) {
        EXPECT_EQ(*size, text.size()) << items;
      }
      const auto json = nlohmann::json::parse(text);
      ASSERT_EQ(json.at("data").size(), items);
      for (std::size_t i = 0; i < items; ++i) {
        const auto& row = json.at("data").at(i);
        EXPECT_EQ(row.at("index"), i);
        const auto values = form == Form::kList ? row.at("embedding").get<std::vector<float>>()
                                                : floats_of(row.at("embedding"));
        ASSERT_EQ(values.size(), dimensions);
        for (std::size_t k = 0; k < dimensions; ++k) {
          ASSERT_EQ(values[k], static_cast<float>(i * dimensions + k) / 1024);
        }
      }
    }
  }
}

TEST(VectorsBody, RawRowsAreTheValuesAndNothingElse) {
  VectorsBody body(answer_of(50, 64), {{.form = Form::kRaw}});
  EXPECT_EQ(body.size(), 50U * 64 * 4);
  const std::string text = written(body);
  ASSERT_EQ(text.size(), 50U * 64 * 4);
  for (std::size_t i = 0; i < 50 * 64; ++i) {
    float value = 0;
    std::memcpy(&value, text.data() + 4 * i, 4);
    ASSERT_EQ(value, static_cast<float>(i) / 1024);
  }
}

TEST(VectorsBody, LargeAnswersComeInSlices) {
  std::size_t slices = 0;
  VectorsBody decimals(answer_of(512, 1024), {{.before = "[", .after = "]"}});
  const auto json = nlohmann::json::parse(written(decimals, &slices));
  EXPECT_EQ(json.size(), 512U);
  EXPECT_GE(slices, 512U * 1024 / 6000);
  slices = 0;
  VectorsBody base64(answer_of(512, 1024), {{.before = "[", .form = Form::kBase64, .after = "]"}});
  (void)written(base64, &slices);
  EXPECT_GE(slices, 512U * 4096 / (128U << 10));
}

TEST(VectorsBody, SeveralSectionsGiveTheSameRowsInSeveralFormats) {
  VectorsBody body(answer_of(4, 32),
                   {{.before = R"({"float":[)", .after = "]"},
                    {.before = R"(,"int8":[)", .dtype = Dtype::kInt8, .after = "]"},
                    {.before = R"(,"ubinary":[)", .dtype = Dtype::kUbinary, .after = "]"},
                    {.before = R"(,"base64":[)", .form = Form::kBase64, .after = "]}"}});
  const auto json = nlohmann::json::parse(written(body));
  EXPECT_EQ(json.at("float").size(), 4U);
  EXPECT_EQ(json.at("int8").at(3).size(), 32U);
  EXPECT_EQ(json.at("ubinary").at(0), (std::vector<int>{127, 255, 255, 255}));
  EXPECT_EQ(floats_of(json.at("base64").at(2)), json.at("float").at(2).get<std::vector<float>>());
}

TEST(Errors, EachFamilyTellsThemItsOwnWay) {
  const http::Problem problem = {.status = 400,
                                 .code = "context_length_exceeded",
                                 .message = "too \"long\"",
                                 .param = "input"};
  const auto openai =
      nlohmann::json::parse(respond_to_problem(http::Family::kOpenAi, problem).body).at("error");
  EXPECT_EQ(openai.at("message"), "too \"long\"");
  EXPECT_EQ(openai.at("type"), "invalid_request_error");
  EXPECT_EQ(openai.at("param"), "input");
  EXPECT_EQ(openai.at("code"), "context_length_exceeded");
  const auto bare = nlohmann::json::parse(
      respond_to_problem(http::Family::kOpenAi, {.status = 500, .message = "x"}).body);
  EXPECT_TRUE(bare.at("error").at("param").is_null());
  EXPECT_TRUE(bare.at("error").at("code").is_null());
  const auto tei = respond_to_problem(http::Family::kTei, problem);
  EXPECT_EQ(tei.status, 422);
  EXPECT_EQ(nlohmann::json::parse(tei.body).at("error_type"), "Tokenizer");
  EXPECT_EQ(nlohmann::json::parse(respond_to_problem(http::Family::kCohere, problem).body),
            (nlohmann::json{{"message", "too \"long\""}}));
  EXPECT_EQ(nlohmann::json::parse(respond_to_problem(http::Family::kOllama, problem).body),
            (nlohmann::json{{"error", "too \"long\""}}));
}

TEST(Errors, WaitsAreWithinWhatClientsObey) {
  using std::chrono::milliseconds;
  for (const int asked : {1, 500, 1000, 7000, 59'000, 60'000, 600'000}) {
    bool spread = false;
    std::string before;
    for (int i = 0; i < 50; ++i) {
      const auto response = respond_to_problem(
          http::Family::kOpenAi,
          problem_of(ErrorCode::kResourceExhausted, "full", milliseconds(asked)));
      const int seconds = std::stoi(std::string(response.headers.get("retry-after")));
      const std::string ms(response.headers.get("retry-after-ms"));
      EXPECT_GE(seconds, 1);
      EXPECT_LE(seconds, 60);
      EXPECT_GE(std::stoi(ms), std::min(60'000, std::max(1000, asked)));
      EXPECT_EQ(response.headers.get("x-should-retry"), "true");
      spread = spread || (!before.empty() && ms != before);
      before = ms;
    }
    EXPECT_TRUE(spread || asked >= 60'000) << asked;
  }
  const auto never =
      respond_to_problem(http::Family::kOpenAi, problem_of(ErrorCode::kTooLong, "too long"));
  EXPECT_FALSE(never.headers.has("retry-after"));
  EXPECT_EQ(never.headers.get("x-should-retry"), "false");
}

TEST(Router, FindsRoutesAndTellsWhatAPathTakes) {
  http::Router router;
  const auto nothing = [](const http::ExchangePtr&) {};
  router.add({.pattern = "/v1/files/{id}/content", .handler = nothing});
  router.add({.pattern = "/v1/files/{id}", .family = http::Family::kOpenAi, .handler = nothing});
  router.add({.method = http::Method::kDelete, .pattern = "/v1/files/{id}", .handler = nothing});
  struct Case {
    http::Method method;
    const char* path;
    const char* pattern;  // Empty: none.
    const char* allowed;
    const char* id;
  };
  using http::Method;
  const Case cases[] = {
      {Method::kGet, "/v1/files/f-1/content", "/v1/files/{id}/content", "", "f-1"},
      {Method::kHead, "/v1/files/f-1", "/v1/files/{id}", "", "f-1"},
      {Method::kDelete, "/v1/files/f-1", "/v1/files/{id}", "", "f-1"},
      {Method::kPost, "/v1/files/f-1", "", "GET, HEAD, DELETE", ""},
      {Method::kGet, "/v1/files/", "", "", ""},
      {Method::kGet, "/v1/files/a/b", "", "", ""},
      {Method::kGet, "/v1/files/a/content/", "", "", ""},
      {Method::kGet, "/v1/nothing", "", "", ""}};
  for (const Case& c : cases) {
    http::Request request;
    request.method = c.method;
    request.path = c.path;
    const auto match = router.find(request);
    EXPECT_EQ(match.route == nullptr ? "" : match.route->pattern, c.pattern) << c.path;
    EXPECT_EQ(match.allowed, c.allowed) << c.path;
    EXPECT_EQ(request.path_value("id"), c.id) << c.path;
  }
}

}  // namespace
}  // namespace tessera::gateway
