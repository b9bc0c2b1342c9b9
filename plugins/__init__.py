"""The plugins that ship with jtcore, imported as `jtplugins`."""
