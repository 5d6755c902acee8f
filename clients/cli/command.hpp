#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "clients/cpp/client.hpp"

// What the commands of `tessera` share. A command is one file with one function add_X, which
// declares its flags and, when the user chose it, leaves what is to be run in `Selected`.
namespace tessera::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;      // One line on stderr says why.
inline constexpr int kExitUsage = 2;       // The command line is wrong.
inline constexpr int kExitItemErrors = 3;  // Done, but some items have an error and no vector.
inline constexpr int kExitInterrupted = 130;
inline constexpr const char* kExitCodes =
    "Exit codes: 0 done, 1 failed, 2 wrong command line, 3 done but some items have errors, "
    "130 interrupted.";

struct Selected {
  std::function<int()> run;  // Returns the exit code; may throw FatalError.
};

void add_embed(CLI::App& app, Selected& selected);
void add_submit(CLI::App& app, Selected& selected);
void add_search(CLI::App& app, Selected& selected);
void add_status(CLI::App& app, Selected& selected);
void add_cancel(CLI::App& app, Selected& selected);
void add_up(CLI::App& app, Selected& selected);
// `tessera coordinator`, `gateway` and `worker`: the programs beside this one, with the same
// arguments.
void add_servers(CLI::App& app, Selected& selected);

// --coordinator, --tenant, --connect-s: for commands that talk to a coordinator.
struct ConnectOptions {
  client::ClientOptions client;
  double connect_s = 5;
};
void add_connect_options(CLI::App& command, ConnectOptions& options);

// Connects, or throws FatalError with what to do about it.
client::Client connect(const ConnectOptions& options);

// --model, --query, --instruction, --prompt-name, --dimensions, --truncate, --max-tokens.
void add_spec_options(CLI::App& command, protocol::EmbedSpec& spec);
// --prompt-name alone.
CLI::Option* add_prompt_name(CLI::App& command, protocol::EmbedSpec& spec);

// The model that a spec's `name` means: the only one when it is empty. nullptr when there is none.
const protocol::ModelInfo* served_model(const std::vector<protocol::ModelInfo>& models,
                                        const std::string& name);

// The name of a job state: "running".
const char* to_string(protocol::JobState state);

// The folder of the running program, where its siblings lie.
std::string program_folder();

}  // namespace tessera::cli
