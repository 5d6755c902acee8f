#include "clients/gateway/auth/access.hpp"

#include <gtest/gtest.h>

namespace tessera::gateway {
namespace {

using http::Request;
using http::Route;

const Route kGuarded{.pattern = "/v1/models", .handler = nullptr};
const Route kOpen{.pattern = "/health", .handler = nullptr, .access = Route::Access::kOpen};

TEST(KeyRing, AKeyIsFoundByItsHashAlone) {
  const auto made = make_key("alice");
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(made->line.find(made->key), std::string::npos);
  const auto ring =
      KeyRing::parse("# keys\n\n" + made->line + " tenant=team tokens-per-minute=5000\n" +
                     make_key("bob")->line + "\r\n");
  ASSERT_TRUE(ring.ok()) << ring.error().message;
  const http::Caller* alice = ring->find(made->key);
  ASSERT_NE(alice, nullptr);
  EXPECT_EQ(alice->name, "alice");
  EXPECT_EQ(alice->tenant, "team");
  EXPECT_EQ(alice->tokens_per_minute, 5000U);
  for (std::size_t i = 0; i < made->key.size(); ++i) {
    std::string wrong = made->key;
    wrong[i] = wrong[i] == 'a' ? 'b' : 'a';
    EXPECT_EQ(ring->find(wrong), nullptr) << i;
  }
  EXPECT_EQ(ring->find(""), nullptr);
  EXPECT_EQ(ring->find(made->key + "x"), nullptr);
  EXPECT_EQ(ring->find(std::string(100'000, 'x')), nullptr);
  EXPECT_NE(make_key("alice")->key, made->key);
}

TEST(KeyRing, AWrongLineIsNamed) {
  const std::string hash(64, 'a');
  const std::pair<std::string, const char*> cases[] = {
      {"alice", "line 1"},
      {"# c\nalice blake2b:abc", "line 2"},
      {"alice sha256:" + hash, "line 1"},
      {"alice blake2b:" + hash + " tenant=", "tenant="},
      {"alice blake2b:" + hash + " admin", "admin"},
      {"alice blake2b:" + hash + " tokens-per-minute=many", "many"},
      {"alice blake2b:" + hash + " tokens-per-minute=-5", "-5"},
      {"alice blake2b:" + hash + "\nbob blake2b:" + hash, "repeats"},
      {"alice blake2b:" + hash + "\nalice blake2b:" + std::string(64, 'b'), "repeats"}};
  for (const auto& [text, says] : cases) {
    const auto ring = KeyRing::parse(text);
    ASSERT_FALSE(ring.ok()) << text;
    EXPECT_NE(ring.error().message.find(says), std::string::npos) << ring.error().message;
  }
  EXPECT_FALSE(make_key("two words").ok());
  EXPECT_FALSE(make_key("").ok());
}

Request with(std::vector<std::pair<std::string, std::string>> headers) {
  Request request;
  for (const auto& [name, value] : headers) {
    request.headers.add(name, value);
  }
  return request;
}

TEST(Access, KeysComeInThreeForms) {
  const auto made = make_key("alice");
  Access access({});
  access.set_keys(std::make_shared<const KeyRing>(*KeyRing::parse(made->line)));
  // base64 of "user:KEY" is made by hand here, for a key without special characters.
  const auto status = [&](Request request, const Route& route) {
    const auto problem = access.admit(request, route);
    return problem ? problem->status : request.caller.name == "alice" ? 200 : 0;
  };
  EXPECT_EQ(status(with({{"Authorization", "Bearer " + made->key}}), kGuarded), 200);
  EXPECT_EQ(status(with({{"authorization", "bearer  " + made->key}}), kGuarded), 200);
  EXPECT_EQ(status(with({{"X-Api-Key", made->key}}), kGuarded), 200);
  EXPECT_EQ(status(with({}), kGuarded), 401);
  EXPECT_EQ(status(with({{"Authorization", "Bearer nonsense"}}), kGuarded), 401);
  EXPECT_EQ(status(with({{"Authorization", "Bearer"}}), kGuarded), 401);
  EXPECT_EQ(status(with({{"Authorization", "Basic !!!"}}), kGuarded), 401);
  EXPECT_EQ(status(with({}), kOpen), 0);
  Access open({});
  Request anybody = with({});
  EXPECT_FALSE(open.admit(anybody, kGuarded));
}

TEST(Access, APasswordWorksFromTheServersOwnPagesOnly) {
  const auto ring = KeyRing::parse(
      "page blake2b:d6c2a6ce7e25b16a2f0d5c2bb2e6ee1a0b7d1d5a3a1a4b6b7c0b0f2e9a1c3d4e");
  ASSERT_TRUE(ring.ok());
  Access access({});
  access.set_keys(std::make_shared<const KeyRing>(*ring));
  Request foreign = with({{"Host", "tessera.example:8080"},
                          {"Origin", "https://evil.example"},
                          {"Authorization", "Basic dTprZXk="}});
  EXPECT_EQ(access.admit(foreign, kGuarded)->status, 403);
  Request own = with({{"Host", "tessera.example:8080"},
                      {"Origin", "http://tessera.example:8080"},
                      {"Authorization", "Basic dTprZXk="}});
  EXPECT_EQ(access.admit(own, kGuarded)->status, 401);  // Looked up, and not known.
}

TEST(Access, LoopbackIsReachedUnderItsOwnNamesOnly) {
  const Access access({.hosts = loopback_hosts({"Box.Local"})});
  struct Case {
    const char* host;
    const char* origin;
    bool passes;
  };
  const Case cases[] = {{"localhost:8080", "", true},
                        {"LOCALHOST", "", true},
                        {"localhost.", "", true},
                        {"127.0.0.1:8080", "http://localhost:3000", true},
                        {"[::1]:8080", "", true},
                        {"box.local", "http://box.local", true},
                        {"rebound.example", "", false},
                        {"rebound.example:8080", "http://rebound.example:8080", false},
                        {"localhost.rebound.example", "", false},
                        {"127.0.0.1.rebound.example", "", false},
                        {"localhost:8080", "https://evil.example", false},
                        {"localhost:8080", "null", false},
                        {"localhost:8080", "http://localhost.evil.example", false},
                        {"", "", false},
                        {"[::1", "", false}};
  for (const Case& c : cases) {
    std::vector<std::pair<std::string, std::string>> headers{{"Host", c.host}};
    if (*c.origin != '\0') {
      headers.emplace_back("Origin", c.origin);
    }
    EXPECT_EQ(!access.screen(with(headers)), c.passes) << c.host << " " << c.origin;
  }
  EXPECT_FALSE(Access({}).screen(with({{"Host", "any.example"}})));
}

}  // namespace
}  // namespace tessera::gateway
