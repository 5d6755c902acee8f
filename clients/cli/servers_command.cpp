#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "clients/cli/command.hpp"
#include "common/check.hpp"

namespace tessera::cli {
namespace {

int exec_sibling(const std::string& name, const std::vector<std::string>& arguments) {
  const std::string path = program_folder() + "/" + name;
  std::vector<char*> argv{const_cast<char*>(path.c_str())};
  for (const std::string& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  execv(path.c_str(), argv.data());
  throw FatalError("cannot start " + path + ": " + std::strerror(errno));
}

void add_server(CLI::App& app, Selected& selected, const std::string& name,
                const std::string& description) {
  CLI::App* command = app.add_subcommand(name, description);
  command->prefix_command();
  command->set_help_flag();  // --help goes to the program, which knows its flags.
  command->callback([command, name, &selected] {
    selected.run = [command, name] {
      return exec_sibling("tessera-" + name, command->remaining());
    };
  });
}

}  // namespace

void add_servers(CLI::App& app, Selected& selected) {
  add_server(app, selected, "coordinator", "Run a coordinator here (see `coordinator --help`)");
  add_server(app, selected, "gateway", "Run an HTTP gateway here (see `gateway --help`)");
  add_server(app, selected, "worker", "Run a worker here (see `worker --help`)");
}

}  // namespace tessera::cli
